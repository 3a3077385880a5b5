
// ---- the page of one entry

// verifyEntry checks that a text is an entry of the log: its leaf, the path to the root, the signature under the root. It
// returns how many entries the log had then.
async function verifyEntry(entry, proof, vkey) {
  const signer = await readKey(vkey), split = proof.indexOf("\n\n"), head = proof.slice(0, split).split("\n");
  const path = head.slice(2).map(base64), [, number] = /^index (0|[1-9][0-9]{0,15})$/.exec(head[1] || "") || [];
  if (split < 0 || head[0] !== "c2sp.org/tlog-proof@v1" || !number || path.some(h => !h || h.length !== HASH)) throw new Error("the proof is no tlog-proof");
  let checkpoint, fields;
  try { checkpoint = await openCheckpoint(utf8.encode(proof.slice(split + 2)), signer); } catch (e) { throw new Error(`the checkpoint: ${e.message}`); }
  try { fields = JSON.parse(entry); } catch { throw new Error("the text is no entry"); }
  const index = Number(number);
  if (fields.seq !== index || !(index < checkpoint.size)) throw new Error("the proof is about another entry");
  const root = await rootFrom(await leafHash(utf8.encode(entry)), index, checkpoint.size, path);
  if (!root || !same(root, checkpoint.root)) throw new Error("the text and the proof do not lead to the signed root");
  return {index, size: checkpoint.size, fingerprint: signer.fingerprint};
}

{
  const byId = id => document.getElementById(id), PINNED = "finpay-verifier-key";
  const stored = f => { try { return f(localStorage); } catch { return null; } }; // a browser may refuse
  const pinned = stored(s => s.getItem(PINNED));
  byId("verify-form").hidden = false;
  if (pinned) { byId("key").value = pinned; byId("keep").checked = true; }
  byId("verify-form").addEventListener("submit", async event => {
    event.preventDefault();
    const vkey = byId("key").value.trim(), verdict = byId("verdict");
    stored(s => byId("keep").checked ? s.setItem(PINNED, vkey) : s.removeItem(PINNED));
    byId("verify").disabled = true;
    let good = true, reason = "";
    try {
      const v = await verifyEntry(byId("text").textContent, byId("proof").textContent, vkey);
      reason = `Entry ${v.index} is in the log of ${v.size} entries that was signed under your key (SHA-256 ${v.fingerprint}).`;
    } catch (e) {
      good = false;
      reason = e.message[0].toUpperCase() + e.message.slice(1) + ".";
    }
    byId("verify").disabled = false;
    verdict.className = "notice " + (good ? "good" : "bad");
    byId("headline").textContent = good ? "Verified" : "Does not verify";
    byId("reason").textContent = reason;
    verdict.hidden = false;
    verdict.focus();
  });
}
