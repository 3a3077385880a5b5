package hsm_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// SoftHSM2 2.6.1 reads an object back from its file for every search, also one that another call is still making
// (ObjectFile::refresh beside P11Object::init): what is made then fails, or comes out without some of its attributes, which no
// search finds again.
func TestWhatIsMadeBesideSearchesIsWhole(t *testing.T) {
	engine := softhsmtest.Open(t)
	var done atomic.Bool
	var searching sync.WaitGroup
	for range 3 {
		searching.Go(func() {
			for !done.Load() {
				if _, err := engine.Exists(t.Context(), hsm.Key{Role: "tokenize", Version: 99}, hsm.AESEncrypt); err != nil {
					t.Errorf("search: %v", err)
					return
				}
			}
		})
	}
	defer searching.Wait()
	defer done.Store(true)
	for i := range 300 {
		value := fmt.Appendf(nil, "head %d", i)
		if err := engine.PutData(t.Context(), "finpay head", value); err != nil {
			t.Fatalf("the %dth: %v", i, err)
		}
		if got, err := engine.Data(t.Context(), "finpay head"); err != nil || len(got) != 1 || !bytes.Equal(got[0], value) {
			t.Fatalf("the %dth is read as %q, %v", i, got, err)
		}
	}
	for i := range 30 {
		for _, spec := range []hsm.Spec{intake, apikey} {
			key := hsm.Key{Role: spec.Role, Version: uint32(i + 1)}
			birth, err := engine.Generate(t.Context(), key, spec)
			if err == nil {
				err = engine.CheckBirth(birth, spec, false)
			}
			if err != nil {
				t.Fatalf("%s: %v", key.Label(), err)
			}
		}
	}
}
