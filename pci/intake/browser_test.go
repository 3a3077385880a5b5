package intake

import (
	"testing"

	"github.com/finterra/finpay/pci"
)

func TestWhatTheScriptSaysOfTheBrowser(t *testing.T) {
	body := func(width, height, depth, tz, language string) string {
		return with("browser_width", width, "browser_height", height, "browser_depth", depth, "browser_tz", tz, "browser_language", language)
	}
	for sent, want := range map[string]pci.Browser{
		with(): {},
		body("1920", "1080", "24", "-480", "zh-Hant-TW"): {JavaScript: true, ScreenWidth: "1920", ScreenHeight: "1080", ColorDepth: "24", TZ: "-480", Language: "zh-Hant-TW"},
		body("1", "2", "30", "0", "es-419"):              {JavaScript: true, ScreenWidth: "1", ScreenHeight: "2", ColorDepth: "30", TZ: "0", Language: "es-419"},
		// A card number in any of them goes no further.
		body("4111111111111111", "4111111111111111", "4111111111111111", "4111111111111111", "4111111111111111"): {JavaScript: true},
		body("1e3", "-1", "3.5", "--48", "de-41111111-11111111"):                                                 {JavaScript: true},
		body("", "", "", "", ""):                 {JavaScript: true},
		body("1", "1", "1", "-", "-de"):          {JavaScript: true, ScreenWidth: "1", ScreenHeight: "1", ColorDepth: "1"},
		body("1", "1", "1", "-12345", "d\u00e9"): {JavaScript: true, ScreenWidth: "1", ScreenHeight: "1", ColorDepth: "1"},
	} {
		_, entered, err := newBench().post(sent)
		if err != nil || entered.Browser != want {
			t.Errorf("%s:\n%+v, %v", sent, entered.Browser, err)
		}
	}
}
