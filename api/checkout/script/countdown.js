// The time that the page is good for.

import { announce } from "./mistakes.js";

/**
 * Shows the time that a form is good for, where it says so.
 * @param {HTMLFormElement} form
 * @param {Record<string, string>} texts
 * @param {() => void} over
 */
export function count(form, texts, over) {
  const left = document.getElementById("left");
  const shown = document.getElementById("clock");
  if (form.dataset.left === undefined || !left || !shown) return;
  left.hidden = false;
  countDown(Number(form.dataset.left), {
    show: (time) => { shown.textContent = time; },
    warn: (minutes) => announce(texts[`left.${minutes}`]),
    over,
  });
}

/**
 * Counts down by the clock that nobody sets. Screen readers are told at five minutes and at one.
 * @param {number} seconds
 * @param {{show: (text: string) => void, warn: (minutes: number) => void, over: () => void}} tell
 */
export function countDown(seconds, tell) {
  const end = performance.now() + seconds * 1000;
  const warnings = [5, 1].filter((minutes) => minutes * 60 < seconds);
  const timer = setInterval(tick, 1000);
  function tick() {
    const left = Math.max(0, Math.ceil((end - performance.now()) / 1000));
    tell.show(clock(left));
    if (warnings.length > 0 && left <= warnings[0] * 60) tell.warn(/** @type {number} */ (warnings.shift()));
    if (left > 0) return;
    clearInterval(timer);
    tell.over();
  }
  tick();
}

/** @param {number} seconds */
export function clock(seconds) {
  const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return (hours > 0 ? `${hours}:${pad(minutes % 60)}` : String(minutes)) + `:${pad(seconds % 60)}`;
}
