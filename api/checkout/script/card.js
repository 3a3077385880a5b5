// The card form: helps while it is filled in, and sends it sealed.

import { ofBrowser } from "./browser.js";
import { checkCode, checkExpiry, checkName, checkNumber, digitsOf } from "./check.js";
import { count } from "./countdown.js";
import { watchCode, watchExpiry, watchNumber } from "./fields.js";
import { announce, showMistake } from "./mistakes.js";
import { showProgress } from "./progress.js";
import { canSeal, seal } from "./seal.js";

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);

/**
 * Takes over the form. Where the page has a key, nothing of the card is sent in clear from now on: the inputs lose the
 * names under which a browser would send them.
 * @param {HTMLFormElement} form
 */
export function begin(form) {
  const texts = JSON.parse(form.dataset.texts ?? "{}");
  const inputs = ["number", "expiry", "cvv", "name"].map(element);
  const sealed = form.dataset.key !== undefined && (canSeal() || form.dataset.open === undefined);
  form.noValidate = true;
  element("late")?.remove();
  help(form, texts);
  if (sealed) for (const input of inputs) input.removeAttribute("name");
  const button = form.querySelector("button");
  button?.removeAttribute("disabled");
  let sending = false;
  form.addEventListener("submit", (event) => {
    if (sending) return event.preventDefault(); // a second click
    if (sealed) event.preventDefault();
    if (!allRight(form, texts)) return event.preventDefault();
    sending = true;
    showProgress(button, texts.paying);
    if (sealed) void sendSealed(form, inputs).catch(() => end(form, "failed"));
  });
  // A page that a browser brings back from its memory still shows the progress of a form that is gone.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

/** @param {HTMLFormElement} form @param {Record<string, string>} texts */
function help(form, texts) {
  const tellCode = watchCode(element("cvv"));
  watchExpiry(element("expiry"));
  watchNumber(element("number"), (brand) => {
    tellCode(brand);
    showBrand(form, brand, texts);
  });
  for (const [id, check] of Object.entries(checks(form))) {
    element(id).addEventListener("blur", () => {
      if (element(id).value === "") return; // somebody may come back to it
      const reason = check();
      showMistake(element(id), text(texts, id, reason));
      if (reason) announce(text(texts, id, reason));
    });
    element(id).addEventListener("input", () => {
      if (element(id).hasAttribute("aria-invalid") && !check()) showMistake(element(id), "");
    });
  }
  count(form, texts, () => end(form, "over"));
}

/** @param {HTMLFormElement} form @returns {Record<string, () => string>} */
function checks(form) {
  return {
    number: () => checkNumber(element("number").value),
    expiry: () => checkExpiry(element("expiry").value, form.dataset.month ?? ""),
    cvv: () => checkCode(element("cvv").value, element("number").value),
    name: () => checkName(element("name").value),
  };
}

/** @param {Record<string, string>} texts @param {string} id @param {string} reason */
const text = (texts, id, reason) => (reason === "" ? "" : texts[`error.${id}.${reason}`]);

/**
 * Shows all that is wrong and goes to the first of it.
 * @param {HTMLFormElement} form
 * @param {Record<string, string>} texts
 */
function allRight(form, texts) {
  let first = null;
  for (const [id, check] of Object.entries(checks(form))) {
    const reason = check();
    showMistake(element(id), text(texts, id, reason));
    if (reason) first ??= element(id);
  }
  first?.focus();
  return first === null;
}

/** @param {HTMLFormElement} form @param {string} brand @param {Record<string, string>} texts */
function showBrand(form, brand, texts) {
  const known = brand !== "" && brand !== "other";
  element("mark").setAttribute("href", `#mark-${known ? brand : "none"}`);
  const name = known ? texts[`brand.${brand}`] : "";
  if (element("brand").textContent !== name) element("brand").textContent = name;
  const hint = brand === "amex" ? "hint.cvv.front" : known ? "hint.cvv.back" : "hint.cvv";
  element("cvv-hint").textContent = texts[hint];
  form.dataset.code = brand === "amex" ? "front" : "back";
}

/**
 * @param {HTMLFormElement} form
 * @param {HTMLInputElement[]} inputs
 */
async function sendSealed(form, inputs) {
  const { key, publicKey, info, aad } = /** @type {Record<string, string>} */ (form.dataset);
  const box = await seal({ publicKey, info, aad }, formBody(form));
  wipe(inputs);
  const post = document.createElement("form");
  post.method = "post";
  post.hidden = true;
  for (const [name, value] of Object.entries({ key, ...box })) {
    const input = document.createElement("input");
    input.type = "hidden";
    input.name = name;
    input.value = value;
    post.append(input);
  }
  document.body.append(post);
  post.submit();
}

/**
 * The form as a browser without this script would send it, and what 3-D Secure asks of browsers.
 * @param {HTMLFormElement} form
 */
function formBody(form) {
  const body = new URLSearchParams({
    number: digitsOf(element("number").value),
    expiry: element("expiry").value,
    cvv: digitsOf(element("cvv").value),
    name: element("name").value.trim(),
    form: form.dataset.form ?? "",
    ...ofBrowser(),
  });
  return new TextEncoder().encode(body.toString());
}

/** @param {HTMLInputElement[]} inputs */
function wipe(inputs) {
  for (const input of inputs) {
    input.value = "";
    input.disabled = true;
  }
}

/**
 * Ends the form, and says why.
 * @param {HTMLFormElement} form
 * @param {string} why the notice's id
 */
function end(form, why) {
  wipe(["number", "expiry", "cvv", "name"].map(element));
  form.hidden = true;
  element("left").hidden = true;
  element(why).hidden = false;
  element(why).focus();
}
