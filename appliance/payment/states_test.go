package payment

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
)

var update = flag.Bool("update", false, "write docs/payment-states.md anew")

const statesPage = "../../docs/payment-states.md"

// diagram draws the table of transitions (Mermaid, stateDiagram-v2).
func diagram() string {
	var b strings.Builder
	b.WriteString("# States of a payment\n\nDrawn from the table of transitions in `appliance/payment/states.go` by a test, which holds this page against it\n" +
		"(`go test ./appliance/payment -run Diagram -update`). Each arrow is one commit of the ledger; its name is the entry's type.\n\n```mermaid\nstateDiagram-v2\n")
	leaves, ended := make(map[api.Status]bool), make(map[api.Status]bool)
	for _, t := range transitions {
		leaves[t.from] = leaves[t.from] || t.from != t.to
		from := string(t.from)
		if from == "" {
			from = "[*]"
		}
		fmt.Fprintf(&b, "    %s --> %s: %s\n", from, t.to, strings.TrimPrefix(t.event, "payment."))
	}
	for _, t := range transitions {
		if !leaves[t.to] && !ended[t.to] {
			ended[t.to] = true
			fmt.Fprintf(&b, "    %s --> [*]\n", t.to)
		}
	}
	b.WriteString("```\n")
	return b.String()
}

func TestTheDiagramIsThatOfTheTable(t *testing.T) {
	if *update {
		if err := os.WriteFile(statesPage, []byte(diagram()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(statesPage)
	if err != nil || string(page) != diagram() {
		t.Errorf("docs/payment-states.md is not the table's (%v): go test ./appliance/payment -run Diagram -update", err)
	}
}

func TestAnEventLeadsToOneStatus(t *testing.T) {
	seen := make(map[string]bool)
	for _, row := range transitions {
		key := string(row.from) + " " + row.event
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
	}
}
