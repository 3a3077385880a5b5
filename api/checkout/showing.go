package checkout

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// showing is a page as the templates see it.
type showing struct {
	Page
	money string // of Amount, once it was formatted
}

// T returns a text in the page's language. A key that is missing is an error, which a test would meet first.
func (s *showing) T(key string) (string, error) {
	text, ok := s.Language.texts[key]
	if !ok {
		return "", fmt.Errorf("no text %q in %s", key, s.Language.Code)
	}
	if !strings.Contains(text, "{") { // as of most
		return text, nil
	}
	return strings.NewReplacer("{amount}", s.isolate(s.Money()), "{merchant}", s.isolate(s.shop())).Replace(text), nil
}

// shop names the merchant, also on pages that know none.
func (s *showing) shop() string {
	if s.Merchant == "" {
		return s.Language.texts["shop"]
	}
	return s.Merchant
}

// isolate keeps a name or an amount from changing the direction of right-to-left text around it (UAX #9, FSI and PDI).
func (s *showing) isolate(text string) string {
	if s.Language.Direction != "rtl" {
		return text
	}
	return "\u2068" + text + "\u2069"
}

// Money is the amount in the manner of the page's language.
func (s *showing) Money() string {
	if s.money == "" {
		s.money = s.Amount.Format(s.Language.Code)
	}
	return s.money
}

// Initial stands for the shop's logo.
func (s *showing) Initial() string {
	for _, c := range s.Merchant {
		return strings.ToUpper(string(c))
	}
	return ""
}

// Title is the browser's title of the page.
func (s *showing) Title() (string, error) {
	if s.Kind == Payable && len(s.Errors) > 0 {
		return s.T("title.error") // announced first, before the page is read (WCAG technique G199 has the like)
	}
	return s.T("title." + string(s.Kind))
}

// StoredMark is the brand whose mark the stored card has, or none.
func (s *showing) StoredMark() string {
	if s.StoredBrand() == "" {
		return "none"
	}
	return string(s.Stored.Brand)
}

// StoredBrand is the name of the stored card's brand, empty for one that has none here.
func (s *showing) StoredBrand() string { return s.Language.texts["brand."+string(s.Stored.Brand)] }

// StoredExpiry is the stored card's expiry as cards have it: "09/30".
func (s *showing) StoredExpiry() string {
	return fmt.Sprintf("%02d/%02d", s.Stored.Expiry.Month, s.Stored.Expiry.Year%100)
}

// DeclineText says why the last card was not taken.
func (s *showing) DeclineText() (string, error) {
	if _, ok := s.Language.texts["decline."+s.Decline]; ok {
		return s.T("decline." + s.Decline)
	}
	return s.T("decline.other")
}

// ErrorOf returns what is wrong with a field, or nothing.
func (s *showing) ErrorOf(field string) string {
	for _, e := range s.Errors {
		if string(e.Field) == field {
			return s.errorText(e)
		}
	}
	return ""
}

// mistake is a line of the summary above the form.
type mistake struct{ Field, Text string }

// Mistakes are what is wrong, in the order of the form.
func (s *showing) Mistakes() []mistake {
	var all []mistake
	for _, field := range []pci.CardField{pci.FieldNumber, pci.FieldExpiry, pci.FieldCVV, pci.FieldName} {
		if text := s.ErrorOf(string(field)); text != "" {
			all = append(all, mistake{string(field), text})
		}
	}
	return all
}

// FirstMistake reports whether field is the first one that is wrong: it takes the focus.
func (s *showing) FirstMistake(field string) bool {
	all := s.Mistakes()
	return len(all) > 0 && all[0].Field == field
}

func (s *showing) errorText(e *pci.CardError) string {
	if text, ok := s.Language.texts["error."+string(e.Field)+"."+string(e.Reason)]; ok {
		return text
	}
	return s.Language.texts["error."+string(e.Field)]
}

// FormID tells this showing of the form from every other, so that a second submit of it is known as one.
func (s *showing) FormID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}

// Refresh is how often the page asks again, in seconds.
func (s *showing) Refresh() int { return refreshSeconds }

// Style is the style sheet.
func (s *showing) Style() File { return styleFile }

// Script is the script, nil on a page that loads none.
func (s *showing) Script() *File {
	if !s.scripted() {
		return nil
	}
	return &scriptFile
}

// Left is the time in which a card can be entered, in whole seconds; negative for a page that does not tell.
func (s *showing) Left() int {
	if s.ExpiresAt.IsZero() || s.Now.IsZero() {
		return -1
	}
	return max(0, int(s.ExpiresAt.Sub(s.Now)/time.Second))
}

// Month is the first month in which a card may end, by UTC and half a day (as [pci.Expiry.Valid]): "2030-01".
func (s *showing) Month() string { return s.Now.UTC().Add(-12 * time.Hour).Format("2006-01") }

// mark is a brand's name, drawn to fit a plate of 44 by 28.
type mark struct {
	Brand          pci.Brand
	Name           string
	Y, Size, Width float64
}

// marks are the brands' marks. They name the brand in Latin letters, as the card does.
var marks = []mark{
	{pci.Visa, "VISA", 18, 12, 28}, {pci.Mastercard, "Mastercard", 16.5, 7, 37}, {pci.Amex, "AMEX", 17.5, 11, 30},
	{pci.Discover, "Discover", 17, 8.5, 34}, {pci.Diners, "Diners", 17, 9.5, 30}, {pci.JCB, "JCB", 18, 12, 23},
	{pci.UnionPay, "UnionPay", 17, 8.5, 35}, {pci.Maestro, "Maestro", 17, 9, 33},
}

// drawings are the marks as the page has them, the same on each.
var drawings = func() template.HTML {
	var text bytes.Buffer
	if err := template.Must(template.ParseFS(pageFiles, "pages/marks.html")).ExecuteTemplate(&text, "marks", marks); err != nil {
		panic("checkout: " + err.Error())
	}
	return template.HTML(text.String()) //nolint:gosec // from a template, out of what stands above
}()

// Drawings are the brands' marks.
func (s *showing) Drawings() template.HTML { return drawings }

// Sign is the path of the drawing on a page without a form: what the heading says, for the eye.
func (s *showing) Sign() string {
	switch s.Kind {
	case Paid:
		return "M7 12.5l3.5 3.5L17 9"
	case Uncertain, Busy, Expired:
		return "M12 6.5V12l3.5 2.5"
	}
	return "M12 6.5v7M12 17v.5"
}

// scriptTexts are the keys of the texts that the script shows, beside the brands' names.
var scriptTexts = []string{
	"error.number.missing", "error.number.wrong_length", "error.number.wrong_checksum",
	"error.expiry.missing", "error.expiry.wrong_format", "error.expiry.expired", "error.cvv.missing", "error.cvv.wrong_length",
	"error.name.too_long", "error.name.wrong_format", "hint.cvv", "hint.cvv.back", "hint.cvv.front", "left.5", "left.1", "paying",
}

// textsOf returns what the script shows in a language, as a JSON object.
func textsOf(language map[string]string) string {
	texts := make(map[string]string, len(scriptTexts)+len(marks))
	keys := slices.Clone(scriptTexts)
	for _, m := range marks {
		keys = append(keys, "brand."+string(m.Brand))
	}
	for _, key := range keys {
		text, ok := language[key]
		if !ok || strings.Contains(text, "{") { // it is the same on all pages
			panic("checkout: the script cannot show the text " + key)
		}
		texts[key] = text
	}
	all, err := json.Marshal(texts)
	if err != nil {
		panic("checkout: " + err.Error()) // of a map of strings
	}
	return string(all)
}

// Texts are what the script shows, as a JSON object.
func (s *showing) Texts() string { return s.Language.scripted }

// Languages are those that the page can be shown in.
func (s *showing) Languages() []Language { return languages }
