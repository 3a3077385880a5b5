package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/config"
)

const (
	testPAN    = "4111111111111111"
	testNumber = 4111111111111111
)

// lender resolves to a value when it is logged.
type lender struct{ value slog.Value }

func (l lender) LogValue() slog.Value { return l.value }

// cardholder is what nobody should log.
type cardholder struct{ Name, Number string }

func TestACardNumberIsNeverLogged(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		for name, write := range map[string]func(*slog.Logger){
			"message":                func(l *slog.Logger) { l.Info("card " + testPAN) },
			"message, spaced":        func(l *slog.Logger) { l.Info("card 4111 1111 1111 1111 refused") },
			"string":                 func(l *slog.Logger) { l.Info("m", "card", testPAN) },
			"string with dashes":     func(l *slog.Logger) { l.Info("m", "card", "4111-1111-1111-1111") },
			"error":                  func(l *slog.Logger) { l.Info("m", "error", errors.New("no "+testPAN)) },
			"wrapped error":          func(l *slog.Logger) { l.Info("m", "error", fmt.Errorf("x: %w", errors.New("no "+testPAN))) },
			"int64":                  func(l *slog.Logger) { l.Info("m", "n", int64(testNumber)) },
			"uint64":                 func(l *slog.Logger) { l.Info("m", "n", uint64(testNumber)) },
			"bytes":                  func(l *slog.Logger) { l.Info("m", "b", []byte("no "+testPAN)) },
			"struct":                 func(l *slog.Logger) { l.Info("m", "who", cardholder{"Aisyah", testPAN}) },
			"pointers":               func(l *slog.Logger) { l.Info("m", "who", map[string]*cardholder{"a": {"Aisyah", testPAN}}) },
			"slice":                  func(l *slog.Logger) { l.Info("m", "all", []string{"x", testPAN}) },
			"group":                  func(l *slog.Logger) { l.Info("m", slog.Group("a", slog.Group("b", "c", testPAN))) },
			"valuer":                 func(l *slog.Logger) { l.Info("m", "v", lender{slog.StringValue(testPAN)}) },
			"valuer in a group":      func(l *slog.Logger) { l.Info("m", slog.Group("a", "v", lender{slog.Int64Value(testNumber)})) },
			"valuer that is a group": func(l *slog.Logger) { l.Info("m", "v", lender{slog.GroupValue(slog.String("n", testPAN))}) },
			"with":                   func(l *slog.Logger) { l.With("card", testPAN).Info("m") },
			"with, in a group":       func(l *slog.Logger) { l.WithGroup("g").With("card", testPAN).Info("m") },
			"group, then an attr":    func(l *slog.Logger) { l.WithGroup("g").Info("m", "card", testPAN) },
			"key":                    func(l *slog.Logger) { l.Info("m", testPAN, "v") },
			"name of a group":        func(l *slog.Logger) { l.WithGroup(testPAN).Info("m", "a", 1) },
		} {
			t.Run(format+"/"+name, func(t *testing.T) {
				var out bytes.Buffer
				n := 0
				write(newLogger(&out, config.Log{Level: "info", Format: format}, func() { n++ }))
				if text := out.String(); strings.Contains(text, testPAN) || strings.Contains(text, "4111 1111") || strings.Contains(text, "NDExMTExMTEx") || !strings.Contains(text, redaction) {
					t.Errorf("%s", text)
				}
				if n != 1 {
					t.Errorf("counted %d times", n)
				}
			})
		}
	}
}

func TestWhatIsNoCardNumberIsLoggedAsItIs(t *testing.T) {
	var out bytes.Buffer
	n := 0
	log := newLogger(&out, config.Log{Level: "debug", Format: "json"}, func() { n++ })
	at := time.Date(2026, 11, 23, 9, 0, 0, 123456789, time.UTC)
	log.With("payment", "pay_01JABCDEF0123456789ABCDEFG").WithGroup("g").Debug("a payment of 1250 EUR at 2026-11-23T09:00:00.123456789Z",
		"card", "411111******1111", "token", "9000000000000001", "rrn", "632709000123", "stan", "000123", "amount", int64(125000000000),
		"at", at, "took", 1234567890123456*time.Nanosecond, "ok", true, "share", 0.4111111111111111, "error", errors.New("dial tcp 127.0.0.1:8443"),
		slog.Group("inner", "unix", at.UnixNano()/1e6, "uuid", "3f2c8d0e-6b7a-4f6e-9b1d-2a4c6e8f0a1b"), "nothing", nil, "raw", []byte("ab"))
	for _, want := range []string{"pay_01JABCDEF0123456789ABCDEFG", "411111******1111", "9000000000000001", "632709000123", "125000000000", "127.0.0.1:8443",
		"3f2c8d0e-6b7a-4f6e-9b1d-2a4c6e8f0a1b", "0.4111111111111111", `"ok":true`, `"nothing":null`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in %s", want, out.String())
		}
	}
	if n != 0 || strings.Contains(out.String(), redaction) {
		t.Errorf("%d values were hidden: %s", n, out.String())
	}
}

func TestTheLevelIsKept(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, config.Log{Level: "warn", Format: "text"}, nil)
	log.Info("quiet")
	log.Warn("loud " + testPAN) // without a counter
	if text := out.String(); strings.Contains(text, "quiet") || !strings.Contains(text, redaction) {
		t.Errorf("%s", text)
	}
	if log.Enabled(context.Background(), slog.LevelInfo) {
		t.Error("info is on")
	}
}

// What the standard library writes by itself comes through the same handler: package log, and what [http.Server] has to
// say of a connection, which can quote its first bytes.
func TestPackageLogAndServersGoThroughTheSameHandler(t *testing.T) {
	var out bytes.Buffer
	n := 0
	before := slog.Default()
	defer slog.SetDefault(before)
	logger := newLogger(&out, config.Log{Level: "debug", Format: "json"}, func() { n++ })
	slog.SetDefault(logger)
	log.Printf("no %s", testPAN)
	errorLog(logger).Printf("http: panic serving 127.0.0.1:1: bad card %s", testPAN)
	slog.Error("no " + testPAN)
	if text := out.String(); strings.Contains(text, testPAN) || strings.Count(text, redaction) != 3 || n != 3 {
		t.Errorf("%d counted: %s", n, text)
	}
}

// A card begins with 1 to 8 (ISO/IEC 7812-1), a token with 9, and ids have letters: neither is ever taken for a card.
func TestNoTokenAndNoIDIsTakenForACard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var out bytes.Buffer
		n := 0
		log := newLogger(&out, config.Log{Level: "info", Format: "text"}, func() { n++ })
		token := "9" + rapid.StringMatching(`[0-9]{11,18}`).Draw(t, "token")
		payment := "pay_0" + rapid.StringMatching(`[1-3][0-9A-HJKMNP-TV-Z]{24}`).Draw(t, "payment")
		log.Info("m", "token", token, "payment", payment, "error", fmt.Errorf("token %s of %s", token, payment))
		if n != 0 || !strings.Contains(out.String(), token) || !strings.Contains(out.String(), payment) {
			t.Fatalf("%d hidden: %s", n, out.String())
		}
	})
}

func TestACardBesideAnIDIsNotHiddenByIt(t *testing.T) {
	for _, text := range []string{"pay_01JABCDEF0123456789ABCDEFG " + testPAN, testPAN + " pay_01JABCDEF0123456789ABCDEFG", "pay_" + testPAN} {
		var out bytes.Buffer
		newLogger(&out, config.Log{Level: "info", Format: "text"}, nil).Info("m", "v", text)
		if !strings.Contains(out.String(), redaction) {
			t.Errorf("%s", out.String())
		}
	}
}
