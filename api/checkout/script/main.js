// The script of the shopper's pages. Each works without it but where it says so.

import { begin } from "./card.js";
import { challenge, method, returned } from "./frames.js";

const card = document.querySelector("form#card");
if (card instanceof HTMLFormElement) begin(card);

const issuer = document.querySelector("form#challenge");
if (issuer instanceof HTMLFormElement) challenge(issuer);

const look = document.querySelector("form#method");
if (look instanceof HTMLFormElement) method(look);

if (document.getElementById("returned")) returned();
