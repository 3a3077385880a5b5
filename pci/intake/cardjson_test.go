package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/finterra/finpay/pci"
)

func TestACardInJSONIsReadInPlace(t *testing.T) {
	for _, text := range []string{
		`{"number":"4111111111111111","expiry":"2031-12"}`,
		" {\t\"expiry\" : \"2031-12\" ,\r\n \"number\":\"4111111111111111\" } ",
		`{"n\u0075mber":"\u0034111111111111111","expiry":"2031\u002D12"}`,
	} {
		body := []byte(text)
		c, err := parseCardJSON(body)
		if err != nil || string(c.number) != "4111111111111111" || string(c.expiry) != "2031-12" {
			t.Errorf("%s: %q %q, %v", text, c.number, c.expiry, err)
			continue
		}
		if expiry, err := c.check(); err != nil || expiry != (pci.Expiry{Year: 2031, Month: 12}) {
			t.Errorf("%s: %v, %v", text, expiry, err)
		}
		if !within(body, c.number) || !within(body, c.expiry) {
			t.Error("what was read is not in the body's own memory")
		}
	}
}

func within(whole, part []byte) bool {
	clear(part)
	return bytes.Contains(whole, make([]byte, len(part)))
}

func TestWhatIsNoCardInJSONIsRefusedWithoutQuotingIt(t *testing.T) {
	const pan = "4111111111111111"
	for name, text := range map[string]string{
		"nothing":             ``,
		"null":                `null`,
		"an array":            `["` + pan + `"]`,
		"a string":            `"` + pan + `"`,
		"an end too early":    `{"number":"` + pan,
		"no colon":            `{"number" "` + pan + `"}`,
		"a number":            `{"number":` + pan + `,"expiry":"2031-12"}`,
		"a null":              `{"number":null,"expiry":"2031-12"}`,
		"a name twice":        `{"number":"` + pan + `","number":"` + pan + `","expiry":"2031-12"}`,
		"a name twice, empty": `{"number":"","number":"` + pan + `","expiry":"2031-12"}`,
		"another member":      `{"number":"` + pan + `","expiry":"2031-12","` + pan + `":"x"}`,
		"a security code":     `{"number":"` + pan + `","expiry":"2031-12","cvv":"123"}`,
		"two objects":         `{"number":"` + pan + `","expiry":"2031-12"}{}`,
		"a comma at the end":  `{"number":"` + pan + `","expiry":"2031-12",}`,
		"a control character": "{\"number\":\"" + pan + "\n\",\"expiry\":\"2031-12\"}",
		"no escape":           `{"number":"\x34` + pan + `","expiry":"2031-12"}`,
		"half a surrogate":    `{"number":"\ud800` + pan + `","expiry":"2031-12"}`,
		"no UTF-8":            "{\"number\":\"" + pan + "\xff\",\"expiry\":\"2031-12\"}",
		"UTF-16":              strings.Join(strings.Split(`{"number":"`+pan+`"}`, ""), "\x00"),
	} {
		c, err := parseCardJSON([]byte(text))
		if !errors.Is(err, pci.ErrMalformed) {
			t.Errorf("%s: %q, %v", name, c.number, err)
		} else if strings.Contains(err.Error(), pan) {
			t.Errorf("%s: the error quotes the body: %v", name, err)
		}
	}
}

func TestCardsThatCannotBeTokenizedSayWhichFieldIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "card number: missing; card expiry: missing",
		`{"number":"4111 1111 1111 1111","expiry":"2031-12"}`: "card number: not_digits",
		`{"number":"-4111111111111111","expiry":"2031-12"}`:   "card number: not_digits",
		`{"number":"４１１１１１１１１１１１１１１１","expiry":"2031-12"}`:    "card number: not_digits",
		`{"number":"tok_abcdefghijkl","expiry":"2031-12"}`:    "card number: not_digits",
		`{"number":"41111111111","expiry":"2031-12"}`:         "card number: wrong_length",
		`{"number":"41111111111111111111","expiry":"31-12"}`:  "card number: wrong_length; card expiry: wrong_format",
		`{"number":"4111111111111112","expiry":"12/31"}`:      "card number: wrong_checksum; card expiry: wrong_format",
		`{"number":"4111111111111111","expiry":"2031-13"}`:    "card expiry: wrong_format",
		`{"number":"4111111111111111","expiry":"1231"}`:       "card expiry: wrong_format",
	} {
		c, err := parseCardJSON([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := c.check(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// What our reader takes, a JSON library takes too, and reads the same; what it refuses is refused by one, or is not a card.
func FuzzCardJSON(f *testing.F) {
	for _, seed := range []string{`{"number":"4111111111111111","expiry":"2031-12"}`, `{"number":"\ud83d\ude00\u0034","expiry":"\"\\\/\b\f\n\r\t"}`,
		`{ }`, `{"key":"intake v1","enc":"AA","ct":"-_"}`, `{"number":"4","number":"4"}`, `{"n":1}`, "{\"number\":\"\x80\"}", `{"expiry":"","number":""}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		ours, err := parseCardJSON(text)
		theirs, theirErr := byLibrary(before)
		switch {
		case (err == nil) != (theirErr == nil):
			t.Errorf("%q: ours %v, the library's %v", before, err, theirErr)
		case err == nil:
			for name, value := range map[string][]byte{"number": ours.number, "expiry": ours.expiry, "key": ours.key, "enc": ours.enc, "ct": ours.ct} {
				if string(value) != theirs[name] {
					t.Errorf("%q: %s is %q, the library reads %q", before, name, value, theirs)
				}
			}
		}
	})
}

func byLibrary(text []byte) (map[string]string, error) {
	if !jsontext.Value(text).IsValid() { // strict: UTF-8, names once each, no lone surrogates
		return nil, errors.New("not valid")
	}
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return nil, fmt.Errorf("no object: %w", err)
	}
	known := make(map[string]string)
	for name, value := range members {
		s, ok := value.(string)
		if !ok || !slices.Contains([]string{"number", "expiry", "key", "enc", "ct"}, name) {
			return nil, errors.New("another member")
		}
		known[name] = s
	}
	return known, nil
}
