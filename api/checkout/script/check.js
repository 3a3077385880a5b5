// What can be told of a card without asking anybody. The reasons are those of pci.CardReason, in the order of
// pci/internal/pan; the appliance checks all of it again.

import { brandOf, codeLength } from "./brand.js";

/**
 * The decimal digits in what somebody typed, in ASCII: keyboards for Arabic, Persian and Chinese have their own.
 * @param {string} text
 * @returns {string}
 */
export function digitsOf(text) {
  let digits = "";
  for (const c of text) {
    const code = c.codePointAt(0);
    const zero = ZEROES.find((z) => code >= z && code <= z + 9);
    if (zero !== undefined) digits += String(code - zero);
  }
  return digits;
}

/** ASCII, Arabic-Indic, extended Arabic-Indic, fullwidth. */
const ZEROES = [0x30, 0x660, 0x6f0, 0xff10];

/**
 * Whether digits end in their check digit (ISO/IEC 7812-1, annex B).
 * @param {string} digits
 */
export function luhn(digits) {
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    const digit = Number(digits[digits.length - 1 - i]);
    sum += i % 2 === 0 ? digit : [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][digit];
  }
  return sum % 10 === 0;
}

/** @param {string} text @returns {string} a reason, empty for none */
export function checkNumber(text) {
  const digits = digitsOf(text);
  if (digits === "") return "missing";
  if (digits.length < 12 || digits.length > 19) return "wrong_length";
  return luhn(digits) ? "" : "wrong_checksum";
}

/**
 * Month and year of an expiry in any way in which people and browsers write one.
 * @param {string} text
 * @returns {{month: number, year: number} | null}
 */
export function parseExpiry(text) {
  const month = /^\s*(\d{4})-(\d{2})\s*$/.exec(text); // YYYY-MM
  const digits = month ? month[2] + month[1] : digitsOf(text);
  if (digits.length !== 4 && digits.length !== 6) return null;
  const found = { month: Number(digits.slice(0, 2)), year: Number(digits.slice(2)) };
  if (found.year < 100) found.year += 2000;
  return found.month >= 1 && found.month <= 12 && found.year >= 2000 && found.year <= 2099 ? found : null;
}

/**
 * @param {string} text
 * @param {string} now YYYY-MM: the first month in which a card may end
 * @returns {string} a reason, empty for none
 */
export function checkExpiry(text, now) {
  if (text.trim() === "") return "missing";
  const expiry = parseExpiry(text);
  if (!expiry) return "wrong_format";
  const [year, month] = now.split("-").map(Number);
  return expiry.year * 12 + expiry.month < year * 12 + month ? "expired" : "";
}

/** @param {string} text @param {string} number @returns {string} a reason, empty for none */
export function checkCode(text, number) {
  const digits = digitsOf(text);
  if (digits === "") return "missing";
  const length = codeLength(brandOf(digitsOf(number)));
  const fits = length === 0 ? digits.length === 3 || digits.length === 4 : digits.length === length;
  return fits ? "" : "wrong_length";
}

/** @param {string} text @returns {string} a reason, empty for none */
export function checkName(text) {
  const name = text.trim();
  if (name === "") return "";
  if ([...name].length > 45) return "too_long"; // EMV 3DS cardholderName
  return [...name].length < 2 || /[\p{N}<>]/u.test(name) ? "wrong_format" : "";
}
