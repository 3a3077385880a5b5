// HPKE (RFC 9180) in base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, as pci/sealing.go has it.

import { Aes256Gcm, CipherSuite, DhkemP256HkdfSha256, HkdfSha256 } from "@hpke/core";

const suite = new CipherSuite({ kem: new DhkemP256HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

/** Whether this browser can seal. Without HTTPS, and in very old browsers, there is no WebCrypto. */
export function canSeal() {
  return globalThis.crypto?.subtle !== undefined;
}

/**
 * Seals a form to the appliance's key.
 * @param {{publicKey: string, info: string, aad: string}} to base64url of the uncompressed point; text
 * @param {Uint8Array} plain is overwritten
 * @returns {Promise<{enc: string, ct: string}>} base64url without padding
 */
export async function seal(to, plain) {
  const text = new TextEncoder();
  try {
    const recipientPublicKey = await suite.kem.deserializePublicKey(decode(to.publicKey));
    const sender = await suite.createSenderContext({ recipientPublicKey, info: text.encode(to.info) });
    const ct = await sender.seal(plain, text.encode(to.aad));
    return { enc: encode(new Uint8Array(sender.enc)), ct: encode(new Uint8Array(ct)) };
  } finally {
    plain.fill(0);
  }
}

/** @param {string} text */
function decode(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (c) => c.charCodeAt(0)).buffer;
}

/** @param {Uint8Array} bytes */
function encode(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
