// The script of the shopper's pages. Each works without it but where it says so.

import { begin } from "./card.js";
import { challenge, method, returned } from "./frames.js";
import { pay } from "./stored.js";

const card = document.querySelector("form#card");
if (card instanceof HTMLFormElement) begin(card);

const stored = document.querySelector("form#stored");
if (stored instanceof HTMLFormElement) pay(stored);

const issuer = document.querySelector("form#challenge");
if (issuer instanceof HTMLFormElement) challenge(issuer);

const look = document.querySelector("form#method");
if (look instanceof HTMLFormElement) method(look);

if (document.getElementById("returned")) returned();

if (document.body.classList.contains("processing")) wait();

/**
 * Asks for the page again. The appliance answers when there is something new, or after a while, and until then this page
 * stays: a reload every two seconds, which a browser without a script does, would be read out each time.
 */
function wait() {
  const next = new URL(location.href);
  next.searchParams.set("wait", "1");
  setTimeout(() => location.replace(next.href), 500);
}
