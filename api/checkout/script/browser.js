// What 3-D Secure asks of a browser that runs scripts (EMV 3DS, table A.1), by the names of the form's fields.

/** @returns {Record<string, string>} */
export function ofBrowser() {
  return {
    browser_width: String(screen.width),
    browser_height: String(screen.height),
    browser_depth: String(screen.colorDepth),
    browser_tz: String(new Date().getTimezoneOffset()),
    browser_language: navigator.language,
  };
}
