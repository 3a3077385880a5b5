// Run by `node --test`. A log of three entries is made and signed here, in the forms of C2SP tlog-checkpoint and tlog-proof; the
// appliance's own is tried in softhsm-test.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client, sealCard } from "../index.js";
import { checkReceipt } from "../receipt.js";

const { subtle } = crypto;
const bytes = (text) => new TextEncoder().encode(text);
const hash = async (...parts) => Buffer.from(await subtle.digest("SHA-256", Buffer.concat(parts.map((p) => Buffer.from(p)))));
const leaf = (entry) => hash([0], bytes(entry));
const node = (left, right) => hash([1], left, right);

/** ASN.1 DER of r and s, as signed notes have them. */
function der(signature) {
  const number = (half) => {
    let n = Buffer.from(half);
    while (n.length > 1 && n[0] === 0) n = n.subarray(1);
    if (n[0] & 0x80) n = Buffer.concat([Buffer.of(0), n]);
    return Buffer.concat([Buffer.of(2, n.length), n]);
  };
  const body = Buffer.concat([number(signature.slice(0, 32)), number(signature.slice(32))]);
  return Buffer.concat([Buffer.of(0x30, body.length), body]);
}

async function newLog(origin) {
  const pair = await subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const spki = Buffer.from(await subtle.exportKey("spki", pair.publicKey)), sum = await hash(spki);
  const key = (name) => `${name}+${sum.subarray(0, 4).toString("hex")}+${Buffer.concat([Buffer.of(2), spki]).toString("base64")}`;
  const prove = async (name, entries, index) => {
    const leaves = await Promise.all(entries.map(leaf)), left = await node(leaves[0], leaves[1]);
    const path = [[leaves[1], leaves[2]], [leaves[0], leaves[2]], [left]][index];
    const body = `${name}\n3\n${(await node(left, leaves[2])).toString("base64")}\n`;
    const signature = der(await subtle.sign({ name: "ECDSA", hash: "SHA-256" }, pair.privateKey, bytes(body)));
    const line = `\u2014 ${name} ${Buffer.concat([sum.subarray(0, 4), signature]).toString("base64")}`;
    return `c2sp.org/tlog-proof@v1\nindex ${index}\n${path.map((h) => h.toString("base64") + "\n").join("")}\n${body}\n${line}\n`;
  };
  return { vkey: key(origin), key, prove };
}

async function newIntakeKey(name) {
  const pair = await subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"]);
  return { key: name, kem: "DHKEM(P-256, HKDF-SHA256)", kdf: "HKDF-SHA256", aead: "AES-256-GCM",
    public_key: Buffer.from(await subtle.exportKey("raw", pair.publicKey)).toString("base64url"),
    check_value: (await hash(Buffer.from(await subtle.exportKey("spki", pair.publicKey)))).subarray(0, 8).toString("hex") };
}

const ORIGIN = "finpay.example/test/2026";
const birth = (seq, key, checkValue) => JSON.stringify({ v: 1, seq, type: "key.created", resource: `hsm:${key}`, data: { key: { check_value: checkValue } } });

/** A key's document with a receipt for each entry, under a log. */
async function documentOf(log, key, entries, name = ORIGIN) {
  const receipt = await Promise.all(entries.map(async (entry, index) => ({ index, entry, proof: await log.prove(name, entries, index) })));
  return { ...key, receipt };
}

test("a key whose birth the log proves is taken, in a later log under the same key too", async () => {
  const log = await newLog(ORIGIN), key = await newIntakeKey("finpay-intake-v1");
  const entries = ['{"v":1,"seq":0}', birth(1, key.key, key.check_value), '{"v":1,"seq":2}'];
  await checkReceipt(await documentOf(log, key, entries), log.vkey);
  await checkReceipt(await documentOf(log, key, entries), `${log.vkey}\n`);
  await checkReceipt(await documentOf(log, key, entries, "finpay.example/test/2027"), log.vkey);
});

test("a key that the log does not prove is refused", async () => {
  const log = await newLog(ORIGIN), other = await newLog(ORIGIN), key = await newIntakeKey("finpay-intake-v1"), thief = await newIntakeKey("finpay-intake-v1");
  const entries = ['{"v":1,"seq":0}', birth(1, key.key, key.check_value), '{"v":1,"seq":2}'];
  const good = await documentOf(log, key, entries);
  const changed = (f) => { const copy = structuredClone(good); f(copy); return copy; };
  for (const [what, document, vkey = log.vkey] of [
    ["another key in the document", { ...good, public_key: thief.public_key }],
    ["another key with its check value", { ...good, public_key: thief.public_key, check_value: thief.check_value }],
    ["an entry written by the thief", changed((d) => { Object.assign(d, thief); d.receipt[1].entry = birth(1, thief.key, thief.check_value); })],
    ["another log", await documentOf(other, key, entries)],
    ["another log's key", good, other.vkey],
    ["a key with another name", { ...good, key: "finpay-intake-v2" }],
    ["an entry of another type", await documentOf(log, key, entries.map((e) => e.replace("key.created", "key.retired")))],
    ["a place that is not the entry's", changed((d) => { d.receipt[1].proof = d.receipt[1].proof.replace("index 1", "index 0"); })],
    ["a signature that was changed", changed((d) => { d.receipt[1].proof = d.receipt[1].proof.replace(/(.)(={0,2}\n)$/, (_, c, end) => (c === "A" ? "B" : "A") + end); })],
    ["a root that was changed", changed((d) => { d.receipt[1].proof = d.receipt[1].proof.replace("\n3\n", "\n4\n"); })],
    ["no receipt", { ...good, receipt: [] }],
    ["a document without one", { ...key }],
    ["a receipt that is none", { ...good, receipt: [{ index: 1, entry: "{", proof: "" }, { index: 1, entry: entries[1], proof: "x" }] }],
    ["no log's key", good, "nonsense"],
    ["no point", { ...good, public_key: "AAAA" }],
  ]) {
    await assert.rejects(checkReceipt(document, vkey), /does not prove the key/, what);
  }
});

test("nothing is sealed, and nothing kept, that the log does not prove", async () => {
  const log = await newLog(ORIGIN), key = await newIntakeKey("finpay-intake-v1");
  const good = await documentOf(log, key, ['{"v":1,"seq":0}', birth(1, key.key, key.check_value), '{"v":1,"seq":2}']);
  const card = { number: "4111111111111111", expiry: "2031-12" };
  await assert.rejects(sealCard(card, { intakeKey: { ...good, receipt: [] }, keyId: "k", logKey: log.vkey }), /nothing is sent/);
  assert.equal((await sealCard(card, { intakeKey: good, keyId: "k", logKey: log.vkey })).key, key.key);
  const answers = [{ ...good, receipt: [] }, good, { token: "9999" }], asked = [];
  const fetch = async (url) => { asked.push(new URL(url).pathname); return Response.json(answers.shift()); };
  const client = new Client({ url: "https://pay.example", apiKey: "fp_test_key1_secret", logKey: log.vkey, fetch });
  await assert.rejects(client.tokenize(card), /nothing is sent/);
  assert.equal((await client.tokenize(card)).token, "9999");
  assert.deepEqual(asked, ["/v1/intake/key", "/v1/intake/key", "/v1/tokens"]);
});
