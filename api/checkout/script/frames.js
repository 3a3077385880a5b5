// Pages of the issuer in frames: the challenge (EMV 3DS, section 4.2) and the 3DS Method (section 3.2).

/** What a page of ours that came back in a frame says to the page around it. */
const RETURNED = "finpay:returned";

/** How long a 3DS Method may take before the payment goes on (EMV 3DS, section 5.8.1), in milliseconds. */
const METHOD_LIMIT = 10_000;

/**
 * What the issuer's page may do: run its script, post its forms, keep its session (allow-same-origin is its own origin, not
 * ours), open its terms in a window or its app by a link that the shopper presses. Not: take the shopper away unasked.
 */
const SANDBOX = "allow-forms allow-scripts allow-same-origin allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation";

/** Nobody sees the 3DS Method's frame, so nobody presses anything in it. */
const HIDDEN_SANDBOX = "allow-forms allow-scripts allow-same-origin";

/**
 * Calls back when a page of ours is in the frame.
 * @param {HTMLIFrameElement} frame
 * @param {() => void} then
 */
function whenReturned(frame, then) {
  addEventListener("message", (event) => {
    if (event.origin === location.origin && event.source === frame.contentWindow && event.data === RETURNED) then();
  });
}

/**
 * @param {string} name
 * @param {string} title
 * @param {string} sandbox
 */
function newFrame(name, title, sandbox) {
  const frame = document.createElement("iframe");
  frame.name = name;
  frame.title = title;
  frame.setAttribute("sandbox", sandbox);
  return frame;
}

/**
 * Opens the challenge in a frame, with a button for the whole window.
 * @param {HTMLFormElement} form posts the creq
 */
export function challenge(form) {
  // Browsers that do not say that a request is for a frame would be shown a page that refuses to be in one.
  if (!("userActivation" in navigator)) return;
  const frame = newFrame("challenge", form.dataset.frame ?? "", SANDBOX);
  frame.className = "challenge";
  frame.allow = `publickey-credentials-get ${form.dataset.site}; payment ${form.dataset.site}`; // passkeys and SPC at the issuer
  form.before(frame);
  document.body.classList.add("with-frame");
  form.target = frame.name;
  form.submit();
  form.target = "";
  const button = form.querySelector("button");
  if (button) button.textContent = form.dataset.full ?? "";
  button?.classList.add("quiet");
  whenReturned(frame, () => location.replace(location.href.split("#")[0]));
  // Somebody who comes back from the whole window finds a frame whose loading was broken off.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  // An issuer that sends its page on to another site than its directory server named needs the whole window.
  document.addEventListener("securitypolicyviolation", (event) => {
    if (event.effectiveDirective === "frame-src") form.submit();
  });
}

/**
 * Lets the issuer look at the browser in a hidden frame, then goes on.
 * @param {HTMLFormElement} form posts threeDSMethodData
 */
export function method(form) {
  const next = /** @type {HTMLFormElement} */ (document.getElementById("next"));
  const frame = newFrame("method", form.dataset.frame ?? "", HIDDEN_SANDBOX);
  frame.hidden = true;
  form.before(frame);
  form.target = frame.name;
  let gone = false;
  const goOn = (/** @type {string} */ completed) => {
    if (gone) return;
    gone = true;
    /** @type {HTMLInputElement} */ (next.elements.namedItem("completed")).value = completed;
    next.submit();
  };
  whenReturned(frame, () => goOn("Y"));
  addEventListener("pageshow", (event) => event.persisted && location.reload()); // somebody came back to what is over
  setTimeout(() => goOn("N"), METHOD_LIMIT);
  form.submit();
}

/** In a frame: tells the page around. In a whole window: goes on by itself. */
export function returned() {
  if (parent !== window) return parent.postMessage(RETURNED, location.origin);
  const link = /** @type {HTMLAnchorElement | null} */ (document.querySelector("a.button"));
  if (link) location.replace(link.href);
}
