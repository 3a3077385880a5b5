// Run by `node --test`: the parts of the script that need no browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { brandOf, codeLength, grouped } from "../brand.js";
import { checkCode, checkExpiry, checkName, checkNumber, digitsOf, luhn, parseExpiry } from "../check.js";
import { clock } from "../countdown.js";
import { expiryText } from "../fields.js";

test("a brand is told as soon as no other is possible", () => {
  const cases = {
    "": "", "4": "visa", "5": "", "51": "mastercard", "50": "maestro", "3": "", "34": "amex", "37": "amex", "36": "diners", "35": "", "3528": "jcb",
    "6": "", "62": "unionpay", "60": "", "6011": "discover", "2": "", "2221": "mastercard", "2720": "mastercard", "2721": "other", "9": "other", "1": "other",
    "30": "", "300": "diners", "306": "other", "4111111111111111": "visa", "378282246310005": "amex",
  };
  for (const [digits, brand] of Object.entries(cases)) assert.equal(brandOf(digits), brand, digits);
});

test("what is told early stays true", () => {
  for (let iin = 0; iin < 1_000_000; iin += 97) {
    const digits = String(iin).padStart(6, "0");
    for (let n = 1; n < 6; n++) {
      const early = brandOf(digits.slice(0, n));
      if (early !== "") assert.equal(brandOf(digits), early, digits);
    }
  }
});

test("numbers are grouped as on the card", () => {
  assert.equal(grouped("378282246310005"), "3782 822463 10005");
  assert.equal(grouped("4111111111111111"), "4111 1111 1111 1111");
  assert.equal(grouped("36227206271667"), "3622 720627 1667");
  assert.equal(grouped("6304000000000000018"), "6304 0000 0000 0000 018");
  assert.equal(grouped("41111"), "4111 1");
  assert.equal(grouped("4111"), "4111");
  assert.equal(grouped(""), "");
});

test("digits of other scripts are digits", () => {
  assert.equal(digitsOf("٤١١١ ۱۲ ４-1a²"), "41111241");
});

test("check digits", () => {
  for (const good of ["4111111111111111", "378282246310005", "6011111111111117", "0"]) assert.ok(luhn(good), good);
  for (const bad of ["4111111111111112", "1411111111111111"]) assert.ok(!luhn(bad), bad);
});

test("reasons are the appliance's", () => {
  assert.equal(checkNumber(" "), "missing");
  assert.equal(checkNumber("4111"), "wrong_length");
  assert.equal(checkNumber("4111-1111 1111 1112"), "wrong_checksum");
  assert.equal(checkNumber("4111-1111 1111 1111"), "");
  assert.equal(checkExpiry("", "2026-11"), "missing");
  assert.equal(checkExpiry("13 / 30", "2026-11"), "wrong_format");
  assert.equal(checkExpiry("10 / 26", "2026-11"), "expired");
  assert.equal(checkExpiry("11 / 26", "2026-11"), "");
  assert.equal(checkCode("", ""), "missing");
  assert.equal(checkCode("123", "3782"), "wrong_length");
  assert.equal(checkCode("1234", "3782"), "");
  assert.equal(checkCode("1234", "4"), "wrong_length");
  assert.equal(checkCode("1234", ""), "");
  assert.equal(checkName(""), "");
  assert.equal(checkName("李雷"), "");
  assert.equal(checkName("4111"), "wrong_format");
  assert.equal(checkName("x".repeat(46)), "too_long");
});

test("an expiry in any way of writing it", () => {
  for (const text of ["0931", "09/31", "09 / 31", "09/2031", "2031-09", "٠٩/٣١"]) assert.deepEqual(parseExpiry(text), { month: 9, year: 2031 }, text);
  for (const text of ["9", "00/31", "13/31", "09/3", "09/31/1"]) assert.equal(parseExpiry(text), null, text);
});

test("an expiry as it is typed", () => {
  const cases = { "0": "0", "1": "1", "9": "09 / ", "12": "12 / ", "1/": "01 / ", "1/3": "01 / 3", "123": "12 / 3", "12 / 31": "12 / 31", "12/2031": "12 / 31", "2031-12": "12 / 31", "12 / 203": "12 / 203", "12 / 2": "12 / 2" };
  for (const [typed, text] of Object.entries(cases)) assert.equal(expiryText(typed, false), text, typed);
  assert.equal(expiryText("12", true), "12");
});

test("security codes", () => {
  assert.deepEqual(["amex", "visa", "other", ""].map(codeLength), [4, 3, 3, 0]);
});

test("the clock", () => {
  assert.deepEqual([0, 59, 60, 1500, 3661].map(clock), ["0:00", "0:59", "1:00", "25:00", "1:01:01"]);
});
