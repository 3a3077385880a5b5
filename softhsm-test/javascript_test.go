package softhsmtest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/finterra/finpay/api"
)

// useOfTheClient is a program of a shop's developer, on the JavaScript client.
const useOfTheClient = `
import { Client, Problem, sealCard } from "@finpay/client";
const finpay = new Client({ url: process.env.URL, apiKey: process.env.KEY });
const card = { number: "4111111111111111", expiry: "2031-12" };
const issued = await finpay.tokenize(card);
const inPage = await sealCard(card, { intakeKey: await finpay.intakeKey(), keyId: finpay.keyId });
const again = await finpay.tokenize(inPage);
const read = await finpay.token(issued.token);
const refused = await finpay.tokenize({ number: "4111111111111112", expiry: "2031-12" }).catch((e) => e);
const elsewhere = await finpay.tokenize(await sealCard(card, { intakeKey: await finpay.intakeKey(), keyId: "other" })).catch((e) => e);
console.log(JSON.stringify({ issued, again, read, refused: refused instanceof Problem ? refused.code + refused.pointer : String(refused),
  elsewhere: elsewhere.code }));
`

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
	command.Env = append(os.Environ(), "URL="+s.cfg.PublicURL, "KEY="+s.apiKey, "NODE_EXTRA_CA_CERTS="+s.cfg.TLS.Certificate)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("node: %v", err)
	}
	var got struct {
		Issued, Again, Read api.Token
		Refused, Elsewhere  string
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
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
