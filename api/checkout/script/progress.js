// A form that was sent.

import { announce } from "./mistakes.js";

/** @param {HTMLButtonElement | null} button @param {string} label */
export function showProgress(button, label) {
  button?.setAttribute("aria-disabled", "true"); // not disabled: that would lose the focus
  button?.classList.add("busy");
  if (button) button.textContent = label;
  announce(label);
}
