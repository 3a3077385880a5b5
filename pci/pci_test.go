package pci_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
)

func TestLast4(t *testing.T) {
	for in, want := range map[pci.Truncated]string{
		"411111******1111": "1111",
		"********0005":     "0005",
		"0005":             "0005",
		"005":              "",
		"":                 "",
	} {
		if got := in.Last4(); got != want {
			t.Errorf("Last4 of %q is %q, want %q", in, got, want)
		}
	}
}

func TestExpiryIsValidUntilItsMonthHasEndedEverywhere(t *testing.T) {
	for _, c := range []struct {
		expiry pci.Expiry
		now    string
		want   bool
	}{
		{pci.Expiry{Year: 2030, Month: 1}, "2029-12-31T23:59:59Z", true},
		{pci.Expiry{Year: 2030, Month: 1}, "2030-01-31T23:59:59Z", true},
		{pci.Expiry{Year: 2030, Month: 1}, "2030-02-01T11:59:59Z", true}, // still January in UTC-12
		{pci.Expiry{Year: 2030, Month: 1}, "2030-02-01T12:00:00Z", false},
		{pci.Expiry{Year: 2030, Month: 12}, "2030-12-31T23:59:59Z", true},
		{pci.Expiry{Year: 2030, Month: 12}, "2031-01-01T12:00:00Z", false},
		{pci.Expiry{Year: 2028, Month: 2}, "2028-02-29T23:59:59Z", true},
		{pci.Expiry{Year: 2030, Month: 1}, "2030-02-01T23:59:59+13:00", true},
		{pci.Expiry{}, "2030-01-01T00:00:00Z", false},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.expiry.Valid(now); got != c.want {
			t.Errorf("%s at %s: %v, want %v", c.expiry, c.now, got, c.want)
		}
	}
}

func TestExpiryForms(t *testing.T) {
	e, err := pci.ParseExpiry("2030-01")
	if err != nil {
		t.Fatal(err)
	}
	if e.String() != "2030-01" || e.YYMM() != "3001" {
		t.Errorf("%s, %s", e, e.YYMM())
	}
	for _, bad := range []string{"", "2030-13", "2030-00", "2030-1", "30-01", "2030/01", "2030-01-01", " 2030-01"} {
		if e, err := pci.ParseExpiry(bad); err == nil {
			t.Errorf("%q was read as %s", bad, e)
		}
	}
}

func TestCardNumbersAreRecognised(t *testing.T) {
	for _, s := range []string{
		"4111111111111111",
		"4111 1111 1111 1111",
		"4111-1111-1111-1111",
		"  4111  1111--1111 1111  ",
		"5555555555554444", "2223003122003222", "378282246310005", "3782 822463 10005", "30569309025904",
		"4222222222222", "6304000000000000", "6205500000000000004",
		"please charge 4111111111111111, thanks",
		"number:4111111111111111;",
		"ref4111111111111111x",
		`{"pan":"4111111111111111"}`,
		// beside other numbers
		"4111111111111111 12/30 123",
		"4111 1111 1111 1111 12/30 123",
		"order 5 4111 1111 1111 1111",
		"10000234 - 4111111111111111 - 2",
		"4111111111111111 4111111111111111",
		// beside an identifier
		"00000000-0000-4000-8000-000000000000 4111111111111111",
		"4111111111111111 5f0c3ab1d2e3f40516273849",
		// People and programs group digits with more than spaces and dashes, and write them in more than ASCII.
		"4111.1111.1111.1111", "4111/1111/1111/1111", "4111_1111_1111_1111", "4111,1111,1111,1111", "4111:1111:1111:1111",
		"order 7.4111.1111.1111.1111.", "3782.822463.10005", "3056.930902.5904", "4111.1111.1111.1111a",
		"4111\u00a01111\u00a01111\u00a01111", "4111\u20131111\u20131111\u20131111", "4111\u200b1111\u200b1111\u200b1111",
		"４１１１１１１１１１１１１１１１", "٤١١١١١١١١١١١١١١١", "４１１１．１１１１．１１１１．１１１１",
	} {
		if !pci.LooksLikePAN(s) {
			t.Errorf("%q passed", s)
		}
	}
}

func TestWhatIsAlmostAnIDHidesNoCard(t *testing.T) {
	for _, s := range []string{
		"01K 4111111111111111 ABCDEF", "pay_4111111111111111", "pay_01K-4111111111111111-ABCDEFG", "pay_01JABCDEF0123456789ABCDEFG 4111111111111111",
		"pay_04111111111111111", "4111111111111111_01JABCDEF0123456789ABCDEFG",
	} {
		if want := s != "pay_04111111111111111"; pci.LooksLikePAN(s) != want { // a zero more is another number
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func TestOtherNumbersAreNotCardNumbers(t *testing.T) {
	for _, s := range []string{
		"", " ", "-", "order 1001", "2026-11-23T08:51:18Z",
		"411111111111",         // 12 digits
		"50000000000000000003", // 20 digits
		"4111111111111112",     // check digit
		"9411111111111111",     // a token's lead
		"1111111111111117", "0000000000000000",
		"4111.1111.1111.1112", "41.11.11.11.11.11.11.11", "4111.11111111.1111", "2026.11.23 4111.1111",
		"411111******1111",
		"4111111a11111111",
		// Identifiers with the digits of a card in them.
		"aaaaaaaa-4111-1111-1111-1111bbbbbbbb",
		"deadbeef4111111111111111deadbeef",
		"pay_01K4111111111111111ABCDEFG", "event evt_01K4111111111111111ABCDEFG.",
	} {
		if pci.LooksLikePAN(s) {
			t.Errorf("%q was taken for a card number", s)
		}
	}
}

func TestIdentifiersAreNotCardNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		plain := strings.ReplaceAll(id.String(), "-", "") + "ef"
		for _, s := range []string{id.String(), "order " + id.String() + ".", strings.ToUpper(id.String()), plain} {
			if pci.LooksLikePAN(s) {
				t.Fatalf("%q was taken for a card number", s)
			}
		}
	})
}

func TestACardNumberIsRecognisedWhateverStandsAroundIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.StringMatching(`([a-z]{0,8}[ .:;,=])?([0-9]{1,12} )?`).Draw(t, "before")
		after := rapid.StringMatching(`( [0-9/]{1,12})?([ .:;,=][a-z]{0,8})?`).Draw(t, "after")
		if s := before + "4111111111111111" + after; !pci.LooksLikePAN(s) {
			t.Fatalf("%q passed", s)
		}
	})
}

func TestCurrencies(t *testing.T) {
	for _, c := range []struct {
		code     pci.Currency
		numeric  string
		exponent int
		minor    int64
		locale   string
		text     string
	}{
		{"EUR", "978", 2, 1050, "en", "€10.50"},
		{"JPY", "392", 0, 1050, "en", "¥1,050"},
		{"BHD", "048", 3, 1050, "en", "BHD 1.050"},
		{"MYR", "458", 2, 5, "ms", "RM 0.05"},
		{"EUR", "978", 2, -1050, "en", "-€10.50"},
	} {
		parsed, err := pci.ParseCurrency(string(c.code))
		if err != nil {
			t.Fatal(err)
		}
		if parsed.Numeric() != c.numeric || parsed.Exponent() != c.exponent {
			t.Errorf("%s: %s, %d digits", parsed, parsed.Numeric(), parsed.Exponent())
		}
		text := strings.ReplaceAll(pci.Amount{Minor: c.minor, Currency: parsed}.Format(c.locale), "\u00a0", " ")
		if text != c.text {
			t.Errorf("%d %s in %q is %q, want %q", c.minor, c.code, c.locale, text, c.text)
		}
	}
	for _, bad := range []string{"", "eur", "EURO", "978", "XXY"} {
		if _, err := pci.ParseCurrency(bad); err == nil {
			t.Errorf("%q is a currency", bad)
		}
	}
}

func TestAReferenceIsNotPrintedWhole(t *testing.T) {
	a, b := pci.NewCardRef(), pci.NewCardRef()
	if a == b || a.IsZero() || !(pci.CardRef{}).IsZero() {
		t.Fatal("references are not fresh")
	}
	if s := fmt.Sprintf("%v %s", a, a); len(s) > 30 {
		t.Errorf("a reference prints as %q", s)
	}
}

func TestCardErrorsAreReadable(t *testing.T) {
	err := pci.CardErrors{{Field: pci.FieldNumber, Reason: pci.ReasonChecksum}, {Field: pci.FieldCVV, Reason: pci.ReasonMissing}}
	if got, want := err.Error(), "card number: wrong_checksum; card cvv: missing"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
