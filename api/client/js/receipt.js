// Proofs of the signed log: C2SP tlog-proof over RFC 6962 trees, signed notes by ECDSA on P-256 with SHA-256 (type 0x02). The same
// text as on the appliance's page that verifies a log, which a test holds it to.

const HASH = 32;

const utf8 = new TextEncoder();
const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

function text(bytes) {
  try { return new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(bytes); } catch { return null; }
}

function base64(line) { // one form only
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(line)) return null;
  try {
    const raw = atob(line);
    return btoa(raw) === line ? Uint8Array.from(raw, c => c.charCodeAt(0)) : null;
  } catch { return null; }
}
const toHex = bytes => Array.from(bytes, b => b.toString(16).padStart(2, "0")).join("");

function join(...parts) {
  const out = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const p of parts) { out.set(p, at); at += p.length; }
  return out;
}

async function sha256(...parts) { return new Uint8Array(await crypto.subtle.digest("SHA-256", parts.length === 1 ? parts[0] : join(...parts))); }

async function readKey(vkey) {
  const [, name, hash, rest] = /^([^\s+]+)\+([0-9a-f]{8})\+(\S+)$/.exec(vkey) || [];
  const raw = rest && base64(rest);
  if (!raw || raw[0] !== 2) throw new Error("the verifier key: it is not NAME+HASH+KEY of an ECDSA key");
  const spki = raw.slice(1), sum = await sha256(spki);
  if (toHex(sum.subarray(0, 4)) !== hash) throw new Error("the verifier key: it does not match its own check value");
  try {
    return {name, hash: sum.slice(0, 4), fingerprint: toHex(sum), vkey,
      key: await crypto.subtle.importKey("spki", spki, {name: "ECDSA", namedCurve: "P-256"}, false, ["verify"])};
  } catch { throw new Error("the verifier key: it is no point of P-256"); }
}

// rawSignature turns ASN.1 DER into r and s of 32 bytes each; null for what is not DER.
function rawSignature(der) {
  if (der.length < 8 || der[0] !== 0x30 || der[1] !== der.length - 2) return null;
  const out = new Uint8Array(64);
  let at = 2;
  for (const end of [32, 64]) {
    const n = der[at + 1];
    if (der[at] !== 2 || !(n >= 1 && n <= 33) || at + 2 + n > der.length) return null;
    let number = der.subarray(at + 2, at + 2 + n);
    if (number[0] & 0x80 || n > 1 && number[0] === 0 && !(number[1] & 0x80)) return null;
    if (number[0] === 0) number = number.subarray(1);
    if (number.length > 32) return null;
    out.set(number, end - number.length);
    at += 2 + n;
  }
  return at === der.length ? out : null;
}

async function openCheckpoint(bytes, signer) {
  const whole = text(bytes), split = whole === null ? -1 : whole.lastIndexOf("\n\n");
  if (split < 0 || !whole.endsWith("\n") || /[\x00-\x09\x0b-\x1f]/.test(whole)) throw new Error("it is no signed note");
  const body = whole.slice(0, split + 1), lines = whole.slice(split + 2, -1).split("\n");
  if (lines.length > 100) throw new Error("it has too many signatures");
  let valid = false;
  for (const line of lines) {
    const [, name, rest] = /^\u2014 ([^\s+]+) (\S+)$/.exec(line) || [];
    const raw = rest && base64(rest);
    if (!raw || raw.length < 5) throw new Error("a line of it is no signature");
    if (name !== signer.name || !same(raw.subarray(0, 4), signer.hash) || valid) continue;
    const signature = rawSignature(raw.subarray(4));
    if (!signature || !await crypto.subtle.verify({name: "ECDSA", hash: "SHA-256"}, signer.key, signature, utf8.encode(body))) throw new Error("its signature does not hold");
    valid = true;
  }
  if (!valid) throw new Error("it is not signed under this key");
  const [origin, size, root] = body.split("\n"), hash = base64(root || "");
  if (origin !== signer.name || !/^[1-9][0-9]{0,15}$/.test(size) || Number(size) > Number.MAX_SAFE_INTEGER || !hash || hash.length !== HASH) throw new Error("it is no checkpoint of this log");
  return {size: Number(size), root: hash};
}

const leafHash = entry => sha256(Uint8Array.of(0), entry);
const nodeHash = (left, right) => sha256(Uint8Array.of(1), left, right);

async function rootFrom(leaf, index, size, path) { // RFC 9162 section 2.1.3.2
  let root = leaf, at = index, last = size - 1;
  const half = () => { at = Math.floor(at / 2); last = Math.floor(last / 2); };
  for (const sibling of path) {
    if (last === 0) return null;
    if (at % 2 === 1 || at === last) {
      root = await nodeHash(sibling, root);
      while (at % 2 === 0 && at !== 0) half();
    } else root = await nodeHash(root, sibling);
    half();
  }
  return last === 0 ? root : null;
}

// verifyEntry checks that a text is an entry of the log: its leaf, the path to the root, the signature under the root. It
// returns how many entries the log had then.
export async function verifyEntry(entry, proof, vkey) {
  const signer = await readKey(vkey), split = proof.indexOf("\n\n"), head = proof.slice(0, split).split("\n");
  const path = head.slice(2).map(base64), [, number] = /^index (0|[1-9][0-9]{0,15})$/.exec(head[1] || "") || [];
  if (split < 0 || head[0] !== "c2sp.org/tlog-proof@v1" || !number || path.some(h => !h || h.length !== HASH)) throw new Error("the proof is no tlog-proof");
  let checkpoint, fields;
  try { checkpoint = await openCheckpoint(utf8.encode(proof.slice(split + 2)), signer); } catch (e) { throw new Error(`the checkpoint: ${e.message}`); }
  try { fields = JSON.parse(entry); } catch { throw new Error("the text is no entry"); }
  const index = Number(number);
  if (fields.seq !== index || !(index < checkpoint.size)) throw new Error("the proof is about another entry");
  const root = await rootFrom(await leafHash(utf8.encode(entry)), index, checkpoint.size, path);
  if (!root || !same(root, checkpoint.root)) throw new Error("the text and the proof do not lead to the signed root");
  return {index, size: checkpoint.size, fingerprint: signer.fingerprint};
}

/**
 * Throws unless the log proves the birth of an intake key, with its check value, under the log's pinned key (`finpay ledger key`):
 * whoever ends TLS on the way could put a key of their own into the document otherwise, and open every card. An appliance's logs
 * follow each other under one key, so the proof's own name for its log is taken.
 */
export async function checkReceipt(document, logKey) {
  const value = await checkValue(document.public_key).catch(() => "");
  if (value !== "" && value === document.check_value) {
    for (const { entry, proof } of document.receipt ?? []) {
      try {
        const { type, resource, data } = JSON.parse(entry);
        if (type !== "key.created" || resource !== `hsm:${document.key}` || data.key.check_value !== value) continue;
        const origin = proof.split("\n\n")[1].split("\n")[0], [, ...key] = logKey.trim().split("+");
        await verifyEntry(entry, proof, [origin, ...key].join("+"));
        return;
      } catch { /* another entry may prove it */ }
    }
  }
  throw new Error("finpay: the log does not prove the key that cards would be sealed to: nothing is sent");
}

const SPKI_P256 = "3059301306072a8648ce3d020106082a8648ce3d030107034200"; // RFC 5480, before an uncompressed point

/** The first eight bytes of SHA-256 over the SubjectPublicKeyInfo, in hex. */
async function checkValue(publicKey) {
  const point = base64(publicKey.replaceAll("-", "+").replaceAll("_", "/").padEnd(Math.ceil(publicKey.length / 4) * 4, "="));
  if (!point || point.length !== 65 || point[0] !== 4) return "";
  const prefix = Uint8Array.from(SPKI_P256.match(/../g), (byte) => parseInt(byte, 16));
  return toHex((await sha256(prefix, point)).subarray(0, 8));
}
