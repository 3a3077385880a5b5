package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/finterra/finpay/api/checkout"
)

// reasons reads the constants of type Reason from the contract's source, so that none is forgotten.
func reasons(t *testing.T) (list []Reason) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "contract.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Reason" {
				value, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				list = append(list, Reason(value))
			}
		}
		return true
	})
	return list
}

func TestThePageHasASentenceForEveryReason(t *testing.T) {
	list := reasons(t)
	if len(list) < 10 {
		t.Fatalf("only %d reasons were found", len(list))
	}
	text := func(reason Reason) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		page := checkout.Page{Kind: checkout.Payable, Language: checkout.Choose(r), Path: "/checkout/x", Merchant: "m", Decline: string(reason)}
		if err := page.Write(w, 200); err != nil {
			t.Fatal(err)
		}
		return w.Body.String()
	}
	other := "Your bank did not approve the payment."
	if !strings.Contains(text("made up"), other) {
		t.Fatal("the page has no general sentence")
	}
	for _, reason := range list {
		if reason != ReasonUnknownOutcome && strings.Contains(text(reason), other) { // after an unknown outcome no card is asked for
			t.Errorf("%s has no sentence of its own", reason)
		}
	}
}
