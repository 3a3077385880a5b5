package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/pci"
)

// newLogger returns the process's logger. It is the last line of defence: a value that looks like a card number is
// not written, and counted by redacted, since it should never have come this far.
func newLogger(w io.Writer, cfg config.Log, redacted func()) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // the configuration was checked
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(redactor{slog.NewJSONHandler(w, options), redacted})
	}
	return slog.New(redactor{slog.NewTextHandler(w, options), redacted})
}

// errorLog is where a server writes what went wrong with a connection: mostly what clients did, so for those who debug.
func errorLog(log *slog.Logger) *stdlog.Logger {
	return slog.NewLogLogger(log.Handler(), slog.LevelDebug)
}

const redaction = "[looks like a card number: not logged]"

// redactor hides what looks like a card number, in messages, keys and values of any kind.
type redactor struct {
	slog.Handler
	redacted func()
}

// Handle implements [slog.Handler].
func (r redactor) Handle(ctx context.Context, record slog.Record) error {
	clean := slog.NewRecord(record.Time, record.Level, r.text(record.Message), record.PC)
	record.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(r.attr(a))
		return true
	})
	return r.Handler.Handle(ctx, clean)
}

// WithAttrs implements [slog.Handler].
func (r redactor) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = r.attr(a)
	}
	return redactor{r.Handler.WithAttrs(clean), r.redacted}
}

// WithGroup implements [slog.Handler].
func (r redactor) WithGroup(name string) slog.Handler {
	return redactor{r.Handler.WithGroup(r.text(name)), r.redacted}
}

func (r redactor) attr(a slog.Attr) slog.Attr {
	key, value := r.text(a.Key), a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		clean := make([]slog.Attr, 0, len(value.Group()))
		for _, member := range value.Group() {
			clean = append(clean, r.attr(member))
		}
		return slog.Attr{Key: key, Value: slog.GroupValue(clean...)}
	}
	for _, text := range texts(value) {
		if r.text(text) != text {
			return slog.String(key, redaction)
		}
	}
	return slog.Attr{Key: key, Value: value}
}

// texts are the forms in which a handler may write a value.
func texts(value slog.Value) []string {
	switch value.Kind() {
	case slog.KindString, slog.KindInt64, slog.KindUint64:
		return []string{value.String()}
	case slog.KindAny:
		all := []string{value.String()}
		if _, isError := value.Any().(error); !isError {
			all = append(all, fmt.Sprintf("%s", value.Any())) // bytes as text
			if encoded, err := json.Marshal(value.Any()); err == nil {
				all = append(all, string(encoded)) // what pointers lead to
			}
		}
		return all
	default: // times, durations, booleans and floats carry no card number
		return nil
	}
}

func (r redactor) text(s string) string {
	if !pci.LooksLikePAN(s) {
		return s
	}
	if r.redacted != nil {
		r.redacted()
	}
	return redaction
}
