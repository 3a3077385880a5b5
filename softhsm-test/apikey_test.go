package softhsmtest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Keys are made, rotated and ended while the appliance serves.
func TestAPIKeysAreRotatedWhileTheApplianceServes(t *testing.T) {
	s := newSystem(t)
	status := func(key string) int {
		t.Helper()
		code, _ := s.call("GET", "/v1/payments", "", "Authorization", "Bearer "+key)
		return code
	}
	local := strings.TrimSpace(s.command("api-key", "create", "--allow", "127.0.0.0/8,::1/128"))
	elsewhere := strings.TrimSpace(s.command("api-key", "create", "--allow", "203.0.113.0/24"))
	if got := status(local); got != http.StatusOK {
		t.Errorf("from an address that is allowed: %d", got)
	}
	if got := status(elsewhere); got != http.StatusUnauthorized {
		t.Errorf("from another one: %d", got)
	}
	rotated := s.command("api-key", "rotate", local, "--overlap", "1h")
	next := strings.Fields(rotated)[0]
	if status(local) != http.StatusOK || status(next) != http.StatusOK {
		t.Error("both work during the overlap")
	}
	last := strings.Fields(s.command("api-key", "rotate", next, "--overlap", "0s"))[0]
	if status(next) != http.StatusUnauthorized || status(last) != http.StatusOK {
		t.Error("without an overlap the new one alone works")
	}
	var keys []struct {
		ID     string     `json:"id"`
		Scopes []string   `json:"scopes"`
		Allow  []string   `json:"allow"`
		UsedAt *time.Time `json:"used_at"`
		EndsAt *time.Time `json:"ends_at"`
	}
	if err := json.Unmarshal([]byte(s.command("api-key", "list", "--json")), &keys); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, k := range keys {
		switch k.ID {
		case keyID(local), keyID(next), keyID(last):
			found++
			if k.UsedAt == nil || len(k.Allow) != 2 || len(k.Scopes) != 1 || (k.EndsAt == nil) != (k.ID == keyID(last)) {
				t.Errorf("%+v", k)
			}
		case keyID(elsewhere):
			found++
			if k.UsedAt != nil {
				t.Errorf("it was never let in, and is said to have been used: %+v", k)
			}
		}
	}
	if found != 4 {
		t.Errorf("%d of four keys are listed", found)
	}
	for _, want := range []string{keyID(last), "in force", "ends ", "ended ", "203.0.113.0/24", "never"} {
		if text := s.command("api-key", "list"); !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if text := s.command("api-key", "list"); strings.Contains(text, last) {
		t.Error("the list shows a key")
	}
	s.serve.stop()
	s.verifyLog()
	s.command("ledger", "check")
}
