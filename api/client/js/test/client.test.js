// Run by `node --test`, without an appliance. What the client seals is opened here with HPKE's other half.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Aes256Gcm, CipherSuite, DhkemP256HkdfSha256, HkdfSha256 } from "@hpke/core";

import { Client, Problem, keyIdOf, sealCard } from "../index.js";

const suite = new CipherSuite({ kem: new DhkemP256HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const card = { number: "4111111111111111", expiry: "2031-12" };
const apiKey = "fp_test_key1_secret";
const bytes = (text) => Buffer.from(text, "base64url");
const arrayBuffer = (text) => new Uint8Array(bytes(text)).buffer;

async function newKey(name) {
  const pair = await suite.kem.generateKeyPair();
  const raw = await suite.kem.serializePublicKey(pair.publicKey);
  return { pair, document: { key: name, kem: "DHKEM(P-256, HKDF-SHA256)", kdf: "HKDF-SHA256", aead: "AES-256-GCM", public_key: Buffer.from(raw).toString("base64url") } };
}

async function open(key, sealed, domain, keyId) {
  const recipient = await suite.createRecipientContext({ recipientKey: key.pair.privateKey, enc: arrayBuffer(sealed.enc), info: new TextEncoder().encode(`finpay card v1\0${domain}\0${keyId}`) });
  return new TextDecoder().decode(await recipient.open(arrayBuffer(sealed.ct)));
}

/** An appliance that answers in turn, and keeps what it was asked. */
function appliance(...answers) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push({ url: String(url), ...init });
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    if (answer === "silent") {
      init.signal.throwIfAborted();
      return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
    }
    const [status, body, type, headers] = answer;
    return new Response(JSON.stringify(body), { status, headers: { "Content-Type": type ?? "application/json", ...headers } });
  };
  return { asked, client: (config) => new Client({ url: "https://pay.example", apiKey, fetch, ...config }) };
}

const problem = (status, code, more = {}, headers = {}) => [status, { type: "about:blank", title: "t", status, code, ...more }, "application/problem+json", headers];

// RFC 9180, appendix A.3.1 has P-256 with AES-128; the suite with AES-256 is in the published test vectors as KEM 16, KDF 1,
// AEAD 2. Here both halves of one library would agree even if wrong: the appliance, in Go, is the other end in softhsm-test.
test("a card is sealed for one API key and domain", async () => {
  const key = await newKey("intake v1");
  const sealed = await sealCard(card, { intakeKey: key.document, keyId: "key1", domain: "d" });
  assert.deepEqual(Object.keys(sealed), ["key", "enc", "ct"]);
  assert.equal(sealed.key, "intake v1");
  assert.equal(bytes(sealed.enc).length, 65);
  assert.doesNotMatch(sealed.enc + sealed.ct, /[^A-Za-z0-9_-]/);
  assert.equal(await open(key, sealed, "d", "key1"), '{"number":"4111111111111111","expiry":"2031-12"}');
  await assert.rejects(open(key, sealed, "d", "key2"));
  await assert.rejects(open(key, sealed, "", "key1"));
});

test("what is no card, or no key, is not sealed, and not repeated", async () => {
  const { document } = await newKey("intake v1");
  for (const wrong of [{ number: "4111 1111 1111 1111", expiry: "2031-12" }, { number: "4111111111111111", expiry: "12/31" }, {}]) {
    await assert.rejects(sealCard(wrong, { intakeKey: document, keyId: "k" }), (e) => e instanceof TypeError && !/4111/.test(e.message));
  }
  await assert.rejects(sealCard(card, { intakeKey: { ...document, aead: "ChaCha20Poly1305" }, keyId: "k" }), /another aead/);
});

test("a card is tokenized", async () => {
  const key = await newKey("intake v1");
  const { asked, client } = appliance([200, key.document], [201, { token: "9999" }], [200, { token: "9999" }]);
  const finpay = client({ domain: "d 1" });
  assert.equal((await finpay.tokenize(card, { idempotencyKey: "i-1" })).token, "9999");
  assert.equal((await finpay.token("99/99")).token, "9999");
  assert.deepEqual(asked.map((a) => a.method + " " + a.url), ["GET https://pay.example/v1/intake/key", "POST https://pay.example/v1/tokens?domain=d%201", "GET https://pay.example/v1/tokens/99%2F99?domain=d%201"]);
  assert.equal(asked[1].headers["Idempotency-Key"], "i-1");
  assert.equal(asked[1].headers.Authorization, `Bearer ${apiKey}`);
  assert.equal(asked[1].redirect, "error");
  assert.equal(JSON.parse(await open(key, JSON.parse(asked[1].body), "d 1", "key1")).number, card.number);
});

test("a replaced key is fetched again, once", async () => {
  const [old, fresh] = [await newKey("intake v1"), await newKey("intake v2")];
  const { asked, client } = appliance([200, old.document], problem(422, "intake_key_unknown"), [200, fresh.document], [201, { token: "t" }]);
  assert.equal((await client().tokenize(card)).token, "t");
  assert.equal(JSON.parse(asked[3].body).key, "intake v2");
  const still = appliance([200, old.document], problem(422, "intake_key_unknown"), [200, fresh.document], problem(422, "intake_key_unknown"));
  await assert.rejects(still.client().tokenize(card), (e) => e instanceof Problem && e.code === "intake_key_unknown");
  assert.equal(still.asked.length, 4);
});

test("what a page has sealed is sent as it is", async () => {
  const { asked, client } = appliance([201, { token: "t" }]);
  const sealed = { key: "k", enc: "e", ct: "c" };
  await client().tokenize(sealed);
  assert.deepEqual(JSON.parse(asked[0].body), sealed);
});

test("problems have code, pointer and patience", async () => {
  const { client } = appliance(problem(422, "invalid_card", { detail: "number: wrong_checksum.", pointer: "/number" }), problem(503, "unavailable", {}, { "Retry-After": "5" }), [502, "<html>", "text/html"], [200, "<html>", "text/html"]);
  const finpay = client();
  const sealed = { key: "k", enc: "e", ct: "c" };
  await assert.rejects(finpay.tokenize(sealed), { name: "Problem", status: 422, code: "invalid_card", pointer: "/number", retryAfter: 0 });
  await assert.rejects(finpay.tokenize(sealed), { code: "unavailable", retryAfter: 5 });
  await assert.rejects(finpay.tokenize(sealed), { code: "unexpected", status: 502 });
  await assert.rejects(finpay.tokenize(sealed), { code: "unexpected", status: 200 });
});

test("silence ends", async () => {
  const { client } = appliance("silent", "silent");
  await assert.rejects(client({ timeout: 1 }).token("t"), { name: "TimeoutError" });
  const leave = AbortSignal.abort(new Error("left"));
  await assert.rejects(client().token("t", { signal: leave }), /left/);
});

test("an API key has an id", () => {
  assert.equal(keyIdOf(apiKey), "key1");
  assert.throws(() => keyIdOf("secret"), (e) => !/secret/.test(e.message));
  assert.throws(() => new Client({ url: "http://pay.example", apiKey }), TypeError);
});
