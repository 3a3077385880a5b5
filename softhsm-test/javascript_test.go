package softhsmtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
)

// useOfTheClient is a program of a shop's developer, on the JavaScript client.
const useOfTheClient = `
import { Client, Problem, sealCard } from "@finpay/client";
const finpay = new Client({ url: process.env.URL, apiKey: process.env.KEY, logKey: process.env.LOGKEY });
const card = { number: "4111111111111111", expiry: "2031-12" };
const issued = await finpay.tokenize(card);
const inPage = await sealCard(card, { intakeKey: await finpay.intakeKey(), keyId: finpay.keyId });
const again = await finpay.tokenize(inPage);
const read = await finpay.token(issued.token);
const refused = await finpay.tokenize({ number: "4111111111111112", expiry: "2031-12" }).catch((e) => e);
const elsewhere = await finpay.tokenize(await sealCard(card, { intakeKey: await finpay.intakeKey(), keyId: "other" })).catch((e) => e);
const genuine = await finpay.intakeKey();
const pair = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"]);
const raw = Buffer.from(await crypto.subtle.exportKey("raw", pair.publicKey)).toString("base64url");
const sum = await crypto.subtle.digest("SHA-256", await crypto.subtle.exportKey("spki", pair.publicKey));
const forged = { ...genuine, public_key: raw, check_value: Buffer.from(sum).toString("hex").slice(0, 16) };
const between = await new Client({ url: process.env.URL, apiKey: process.env.KEY, logKey: process.env.LOGKEY,
  fetch: async (url, init) => String(url).endsWith("/v1/intake/key") ? Response.json(forged) : fetch(url, init) }).tokenize(card).catch((e) => e.message);
const otherLog = await sealCard(card, { intakeKey: genuine, keyId: finpay.keyId, logKey: process.env.OTHERLOGKEY }).catch((e) => e.message);
console.log(JSON.stringify({ between, otherLog, issued, again, read, refused: refused instanceof Problem ? refused.code + refused.pointer : String(refused),
  elsewhere: elsewhere.code }));
`

// anotherKeyFor is the public key of a log of the same name that somebody else keeps.
func anotherKeyFor(t *testing.T, origin string) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ledger.VerifierKey(origin, &private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestJavaScriptClientTokenizes(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: node is not installed, so the JavaScript client is not tried against the appliance: .ci/deps node")
	}
	if _, err := os.Stat("../api/client/js/node_modules/@hpke/core"); err != nil {
		t.Skip("SKIPPED: the JavaScript client's packages are not installed: npm ci in api/client/js")
	}
	s := newSystem(t)
	client, err := filepath.Abs("../api/client/js")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(node, "--input-type=module", "--eval", useOfTheClient)
	command.Dir = client // a package may import itself by its name
	command.Env = append(os.Environ(), "URL="+s.cfg.PublicURL, "KEY="+s.apiKey, "NODE_EXTRA_CA_CERTS="+s.cfg.TLS.Certificate,
		"LOGKEY="+strings.TrimSpace(s.command("ledger", "key")), "OTHERLOGKEY="+anotherKeyFor(t, s.cfg.Ledger.Origin))
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("node: %v", err)
	}
	var got struct {
		Issued, Again, Read api.Token
		Refused, Elsewhere  string
		Between, OtherLog   string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got.Issued.Token == "" || got.Again.Token != got.Issued.Token || got.Read.Token != got.Issued.Token || got.Issued.Card.Truncated != "411111******1111" {
		t.Errorf("%+v", got)
	}
	if got.Refused != "invalid_card/number" || got.Elsewhere != "malformed" {
		t.Errorf("refused: %s; sealed for another key: %s", got.Refused, got.Elsewhere)
	}
	for _, said := range []string{got.Between, got.OtherLog} {
		if !strings.Contains(said, "does not prove the key") {
			t.Errorf("a key that the log does not prove: %q", said)
		}
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
