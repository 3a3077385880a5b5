// What is wrong, beside the fields, as the page without a script has it.

/**
 * Shows what is wrong with an input, or that nothing is.
 * @param {HTMLInputElement} input
 * @param {string} text empty for nothing
 */
export function showMistake(input, text) {
  const id = `${input.id}-error`;
  let note = document.getElementById(id);
  if (text === "") {
    note?.remove();
    input.removeAttribute("aria-invalid");
    describe(input, (ids) => ids.filter((other) => other !== id));
    return;
  }
  if (!note) {
    note = document.createElement("p");
    note.className = "error";
    note.id = id;
    input.parentElement?.after(note);
  }
  note.textContent = text;
  input.setAttribute("aria-invalid", "true");
  describe(input, (ids) => (ids.includes(id) ? ids : [id, ...ids]));
}

/**
 * @param {HTMLInputElement} input
 * @param {(ids: string[]) => string[]} change
 */
function describe(input, change) {
  const ids = change((input.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean));
  if (ids.length > 0) input.setAttribute("aria-describedby", ids.join(" "));
  else input.removeAttribute("aria-describedby");
}

/**
 * Has a screen reader say something when it has time.
 * @param {string} text
 */
export function announce(text) {
  const live = document.getElementById("live");
  if (live && live.textContent !== text) live.textContent = text;
}
