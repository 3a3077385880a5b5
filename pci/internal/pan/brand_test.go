package pan

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/finterra/finpay/pci"
)

// The checkout page's script tells the brand while a number is typed, by a list of its own that is this one.
func TestTheScriptHasTheSameRanges(t *testing.T) {
	text, err := os.ReadFile("../../../api/checkout/script/brands.json")
	if err != nil {
		t.Fatal(err)
	}
	var listed []struct {
		Low, High int
		Brand     string
	}
	if err := json.Unmarshal(text, &listed); err != nil {
		t.Fatal(err)
	}
	theirs := make([]brandRange, len(listed))
	for i, r := range listed {
		theirs[i] = brandRange{r.Low, r.High, pci.Brand(r.Brand)}
	}
	if !slices.Equal(theirs, brandRanges) {
		t.Errorf("the lists differ:\n%v\n%v", theirs, brandRanges)
	}
}
