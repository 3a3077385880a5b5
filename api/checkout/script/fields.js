// The card form's inputs: what they help with while somebody types. What is typed is never logged, stored or sent anywhere
// from here.

import { MAX_DIGITS, brandOf, codeLength, grouped } from "./brand.js";
import { digitsOf, parseExpiry } from "./check.js";

/**
 * Writes a text into an input and keeps the caret behind the same digit.
 * @param {HTMLInputElement} input
 * @param {string} text
 */
function rewrite(input, text) {
  if (input.value === text) return;
  const before = digitsOf(input.value.slice(0, input.selectionEnd ?? input.value.length)).length;
  const atEnd = input.selectionEnd === input.value.length;
  input.value = text;
  if (document.activeElement !== input) return;
  let caret = 0;
  for (let seen = 0; seen < before && caret < text.length; caret++) if (digitsOf(text[caret])) seen++;
  if (atEnd) caret = text.length;
  input.setSelectionRange(caret, caret);
}

/**
 * Lets Backspace and Delete reach over a separator to the digit behind it.
 * @param {KeyboardEvent} event
 */
function reachOver(event) {
  const input = /** @type {HTMLInputElement} */ (event.target);
  const at = input.selectionStart ?? 0;
  if (at !== input.selectionEnd) return;
  let to = at;
  if (event.key === "Backspace") while (to > 0 && !digitsOf(input.value[to - 1])) to--;
  if (event.key === "Delete") while (to < input.value.length && !digitsOf(input.value[to])) to++;
  if (to !== at) input.setSelectionRange(to, to);
}

/**
 * Groups the number as it is typed, pasted or filled in, and tells which brand it is.
 * @param {HTMLInputElement} input
 * @param {(brand: string) => void} tell
 */
export function watchNumber(input, tell) {
  input.maxLength = 40; // a pasted number may have any separators
  input.removeAttribute("pattern");
  const update = () => {
    const digits = digitsOf(input.value).slice(0, MAX_DIGITS);
    rewrite(input, grouped(digits));
    tell(brandOf(digits));
  };
  input.addEventListener("keydown", reachOver);
  input.addEventListener("input", update);
  input.addEventListener("change", update); // some browsers fill in a card without an input event
  update();
}

/**
 * Writes an expiry as MM / YY while it is typed.
 * @param {HTMLInputElement} input
 */
export function watchExpiry(input) {
  input.maxLength = 12;
  input.addEventListener("keydown", reachOver);
  input.addEventListener("input", (event) => {
    const deleting = /** @type {InputEvent} */ (event).inputType?.startsWith("delete") ?? false;
    rewrite(input, expiryText(input.value, deleting));
  });
  input.addEventListener("change", () => rewrite(input, expiryText(input.value, false)));
}

/**
 * @param {string} typed
 * @param {boolean} deleting
 */
export function expiryText(typed, deleting) {
  if (/^\s*\d{4}-\d{2}\s*$/.test(typed)) {
    const expiry = parseExpiry(typed);
    return expiry ? `${String(expiry.month).padStart(2, "0")} / ${String(expiry.year).slice(-2)}` : typed;
  }
  let digits = digitsOf(typed).slice(0, 6);
  if (/^\s*\d\s*[/-]/.test(typed) || /^[2-9]/.test(digits)) digits = "0" + digits; // a month of one digit
  if (digits.length === 6 && digits.slice(2, 4) === "20") digits = digits.slice(0, 2) + digits.slice(4);
  if (digits.length < 2 || (digits.length === 2 && deleting)) return digits;
  return `${digits.slice(0, 2)} / ${digits.slice(2)}`;
}

/**
 * Keeps the security code to its digits.
 * @param {HTMLInputElement} input
 * @returns {(brand: string) => void} to be told the brand of the card
 */
export function watchCode(input) {
  let length = 4;
  input.removeAttribute("pattern");
  const update = () => rewrite(input, digitsOf(input.value).slice(0, length));
  input.addEventListener("input", update);
  return (brand) => {
    length = codeLength(brand) || 4;
    input.maxLength = length;
    update();
  };
}
