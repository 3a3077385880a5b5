// The page of a stored card: one button.

import { ofBrowser } from "./browser.js";
import { count } from "./countdown.js";
import { showProgress } from "./progress.js";

/** @param {HTMLFormElement} form */
export function pay(form) {
  const texts = JSON.parse(form.dataset.texts ?? "{}");
  let sending = false;
  form.addEventListener("submit", (event) => {
    if (sending) return event.preventDefault(); // a second click
    sending = true;
    for (const [name, value] of Object.entries(ofBrowser())) {
      const input = document.createElement("input");
      input.type = "hidden";
      input.name = name;
      input.value = value;
      form.append(input);
    }
    showProgress(form.querySelector("button"), texts.paying);
  });
  count(form, texts, () => {
    const over = document.getElementById("over");
    const left = document.getElementById("left");
    form.hidden = true;
    if (left) left.hidden = true;
    if (over) over.hidden = false;
    over?.focus();
  });
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}
