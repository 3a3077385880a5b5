package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server for the length of a test.
func serve(t *testing.T, dir string, operations map[string]Operation) (stop func()) {
	t.Helper()
	s, err := Listen(dir, operations)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return stop
}

func TestACommandReachesARunningAppliance(t *testing.T) {
	// Longer than the name of a socket may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var answer string
	if err := Call(t.Context(), dir, "greet", "you", &answer); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without an appliance: %v", err)
	}
	operations := map[string]Operation{
		"greet": func(_ context.Context, by string, request []byte) (any, error) {
			return by + " says " + string(request), nil
		},
		"refuse": func(context.Context, string, []byte) (any, error) {
			return nil, errors.New("the key is not there")
		},
	}
	for range 2 { // the second one comes after a process that was killed
		stop := serve(t, dir, operations)
		if err := Call(t.Context(), dir, "greet", "you", &answer); err != nil || answer != Origin(os.Geteuid())+` says "you"` {
			t.Errorf("%q, %v", answer, err)
		}
		if err := Call(t.Context(), dir, "refuse", nil, &answer); err == nil || err.Error() != "the key is not there" {
			t.Errorf("an operation's error is %v", err)
		}
		if err := Call(t.Context(), dir, "unknown", nil, &answer); err == nil || errors.Is(err, ErrNotRunning) {
			t.Errorf("an unknown operation: %v", err)
		}
		if !Serves(t.Context(), dir) {
			t.Error("nobody serves")
		}
		info, err := os.Stat(filepath.Join(dir, FileName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
		}
		stop()
		if err := os.WriteFile(filepath.Join(dir, FileName), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	if err := Call(t.Context(), dir, "greet", "you", &answer); !errors.Is(err, ErrNotRunning) || Serves(t.Context(), dir) {
		t.Errorf("after its end: %v", err)
	}
}
