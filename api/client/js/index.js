/**
 * Client of the FINPay appliance's token API, for browsers and Node.js 18 or later. A card leaves the process sealed (HPKE,
 * RFC 9180, base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) to a key in the appliance's HSM.
 *
 * Not promised: JavaScript cannot wipe strings, so the caller's card stays in memory until it is collected. Without logKey the key
 * that cards are sealed to is as genuine as the TLS connection that it came over; with it, the appliance's log proves it.
 */

import { Aes256Gcm, CipherSuite, DhkemP256HkdfSha256, HkdfSha256 } from "@hpke/core";

import { checkReceipt } from "./receipt.js";

const SUITE = { kem: "DHKEM(P-256, HKDF-SHA256)", kdf: "HKDF-SHA256", aead: "AES-256-GCM" };

/** How long a request may take by default, in milliseconds. */
export const DEFAULT_TIMEOUT = 30_000;

/** An error of the appliance's contract (RFC 9457). */
export class Problem extends Error {
  constructor(status, document, retryAfter = 0) {
    super(`finpay: ${document.code}: ${document.detail ?? document.title ?? ""}`);
    this.name = "Problem";
    this.status = status;
    this.code = document.code;
    this.detail = document.detail ?? "";
    this.pointer = document.pointer ?? "";
    this.retryAfter = retryAfter;
  }
}

/** Seals a card to an intake key, for the API key that will tokenize it. With logKey, to none that the log does not prove. */
export async function sealCard(card, { intakeKey, keyId, domain = "", logKey = "" }) {
  for (const [part, name] of Object.entries(SUITE)) {
    if (intakeKey[part] !== name) throw new TypeError(`finpay: the intake key is for another ${part}`);
  }
  if (!/^\d{12,19}$/.test(card.number)) throw new TypeError("finpay: a card number is 12 to 19 digits, without spaces");
  if (!/^\d{4}-\d{2}$/.test(card.expiry)) throw new TypeError("finpay: an expiry is YYYY-MM");
  if (logKey !== "") await checkReceipt(intakeKey, logKey);
  const text = new TextEncoder();
  const plain = text.encode(JSON.stringify({ number: card.number, expiry: card.expiry }));
  try {
    const suite = new CipherSuite({ kem: new DhkemP256HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
    const recipientPublicKey = await suite.kem.deserializePublicKey(decode(intakeKey.public_key));
    const sender = await suite.createSenderContext({ recipientPublicKey, info: text.encode(`finpay card v1\0${domain}\0${keyId}`) });
    const ct = await sender.seal(plain);
    return { key: intakeKey.key, enc: encode(sender.enc), ct: encode(ct) };
  } finally {
    plain.fill(0);
  }
}

/** The id in an API key, which is not secret: what is sealed is bound to it. */
export function keyIdOf(apiKey) {
  const parts = apiKey.split("_");
  if (parts.length < 4) throw new TypeError("finpay: this is no API key of the appliance: fp_test_… or fp_live_…");
  return parts[2];
}

/** Talks to one appliance under one API key. The key is a secret: a client belongs on a server, sealCard in a page. */
export class Client {
  #base;
  #apiKey;
  #domain;
  #timeout;
  #fetch;
  #logKey;
  #intakeKey;

  constructor({ url, apiKey, domain = "", logKey = "", timeout = DEFAULT_TIMEOUT, fetch = globalThis.fetch }) {
    this.#base = new URL(url);
    if (this.#base.protocol !== "https:") throw new TypeError("finpay: url must be https://host[:port]");
    this.keyId = keyIdOf(apiKey);
    this.#apiKey = apiKey;
    this.#domain = domain;
    this.#timeout = timeout;
    this.#fetch = fetch;
    this.#logKey = logKey;
  }

  /** The key that cards are sealed to, kept until the appliance says that it has another one. */
  async intakeKey({ refresh = false, signal } = {}) {
    if (refresh || !this.#intakeKey) {
      const document = await this.#call("GET", "/v1/intake/key", { signal });
      if (this.#logKey !== "") await checkReceipt(document, this.#logKey);
      this.#intakeKey = document;
    }
    return this.#intakeKey;
  }

  /** Seals a card for this client's API key. */
  async sealCard(card, { signal } = {}) {
    return sealCard(card, { intakeKey: await this.intakeKey({ signal }), keyId: this.keyId, domain: this.#domain });
  }

  /** The token of a card, or of one that a page has sealed. A card is sealed again, once, if the key was replaced. */
  async tokenize(card, options = {}) {
    const send = (body) => this.#call("POST", this.#withDomain("/v1/tokens"), { ...options, body });
    if ("ct" in card) return send(card);
    try {
      return await send(await this.sealCard(card, options));
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== "intake_key_unknown") throw error;
      await this.intakeKey({ ...options, refresh: true });
      return send(await this.sealCard(card, options));
    }
  }

  /** What the appliance knows of a token. */
  async token(token, { signal } = {}) {
    return this.#call("GET", this.#withDomain(`/v1/tokens/${encodeURIComponent(token)}`), { signal });
  }

  #withDomain(path) {
    return this.#domain === "" ? path : `${path}?domain=${encodeURIComponent(this.#domain)}`;
  }

  async #call(method, path, { body, idempotencyKey, signal }) {
    const headers = { Authorization: `Bearer ${this.#apiKey}`, Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (idempotencyKey !== undefined) headers["Idempotency-Key"] = idempotencyKey;
    const limit = new AbortController();
    const stop = () => limit.abort(signal.reason);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop);
    const timer = setTimeout(() => limit.abort(new DOMException("finpay: no answer in time", "TimeoutError")), this.#timeout);
    try {
      const response = await this.#fetch(new URL(path, this.#base), { // a card follows no redirect
        method, headers, body: body === undefined ? undefined : JSON.stringify(body), redirect: "error", signal: limit.signal,
      });
      return await read(response);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }
}

async function read(response) {
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0].trim();
  if (response.ok && type === "application/json") return response.json();
  const document = type === "application/problem+json" ? await response.json() : {};
  const retryAfter = Number(response.headers.get("Retry-After") ?? 0);
  throw new Problem(response.status, { code: "unexpected", detail: `HTTP ${response.status}`, ...document }, Number.isFinite(retryAfter) ? retryAfter : 0);
}

function decode(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (c) => c.charCodeAt(0)).buffer;
}

function encode(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
