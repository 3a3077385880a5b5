package verifier

import (
	"os"
	"regexp"
	"testing"
)

// definition is a function of a script, or a function that is a constant, on the left margin.
var definition = regexp.MustCompile(`(?m)^(?:export )?((?:async )?function (\w+)\((?:.*\}$|(?s:.*?)^\})|const (\w+) = (?:bytes|entry|\(a, b\)|\(left, right\)) =>.*$)`)

// definitions are the texts of a script's functions, by their names.
func definitions(t *testing.T, script []byte) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, m := range definition.FindAllSubmatch(script, -1) {
		texts[string(m[2])+string(m[3])] = string(m[1])
	}
	return texts
}

// The JavaScript client has to stand alone, as the page has to: what both do is the same text.
func TestTheClientChecksProofsAsThePageDoes(t *testing.T) {
	read := func(path string) []byte {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	client, page, audit := definitions(t, read("../client/js/receipt.js")), definitions(t, Core), definitions(t, read("../audit/audit.js"))
	own := map[string]bool{"checkReceipt": true, "checkValue": true}
	shared := 0
	for name, text := range client {
		if own[name] {
			continue
		}
		shared++
		if text != page[name] && text != audit[name] {
			t.Errorf("%s is not that of the page:\n%s", name, text)
		}
	}
	for _, name := range []string{"base64", "readKey", "rawSignature", "openCheckpoint", "leafHash", "nodeHash", "rootFrom", "verifyEntry", "checkReceipt"} {
		if client[name] == "" {
			t.Errorf("%s is not found", name)
		}
	}
	if shared != 13 {
		t.Errorf("%d functions are shared, want 13", shared)
	}
}
