// Which brand a number that is being typed belongs to, and how its digits are grouped on the card.

import ranges from "./brands.json" with { type: "json" }; // the ranges of pci/internal/pan; a test there holds both together

/** How the digits stand on the card. Everything else is in fours. */
const GROUPS = { amex: [4, 6, 5], diners: [4, 6, 4] };

/** The longest PAN (ISO/IEC 7812-1), in digits. */
export const MAX_DIGITS = 19;

/**
 * The brand that all numbers beginning with digits have; empty while there is more than one.
 * @param {string} digits
 * @returns {string} a pci.Brand; "other" for no range of ours
 */
export function brandOf(digits) {
  if (digits === "") return "";
  const prefix = digits.slice(0, 6);
  const low = Number(prefix.padEnd(6, "0"));
  const high = Number(prefix.padEnd(6, "9"));
  let found = "";
  for (const range of ranges) { // the first match counts
    if (range.high < low || range.low > high) continue;
    if (found !== "" && found !== range.brand) return "";
    found = range.brand;
    if (range.low <= low && range.high >= high) return found;
  }
  return found === "" ? "other" : "";
}

/**
 * Digits in the groups in which they stand on the card, with spaces between.
 * @param {string} digits
 * @returns {string}
 */
export function grouped(digits) {
  const sizes = GROUPS[brandOf(digits)] ?? [];
  const groups = [];
  for (let at = 0, n = 0; at < digits.length; n++) {
    const size = sizes[n] ?? 4;
    groups.push(digits.slice(at, at + size));
    at += size;
  }
  return groups.join(" ");
}

/**
 * How many digits the security code has.
 * @param {string} brand
 * @returns {number} 0 where that is not known yet
 */
export function codeLength(brand) {
  if (brand === "") return 0;
  return brand === "amex" ? 4 : 3;
}
