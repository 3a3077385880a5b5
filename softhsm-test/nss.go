package softhsmtest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
)

// Installed returns the library of a provider's profile. A missing one is a failure, never a skip; debian is the package
// that has it.
func Installed(t testing.TB, profile, debian string) string {
	t.Helper()
	p, _, err := config.Provider(profile, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range p.Modules {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed (Debian: %s); run `make deps`", profile, debian)
	return ""
}

// NSSToken makes a database of NSS softokn in a directory that ends with the test.
func NSSToken(t testing.TB) hsm.Config {
	t.Helper()
	profile, _, err := config.Provider("nss", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := hsm.Config{
		Module:       Installed(t, "nss", "libnss3"),
		Label:        "NSS Certificate DB",
		PIN:          "Conformance-1",
		InitArgument: fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", t.TempDir()),
		Profile:      profile,
	}
	if err := setNSSPIN(cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// setNSSPIN gives a new database its PIN, as `certutil -N` does: the security officer's is empty until then.
func setNSSPIN(cfg hsm.Config) error {
	module := pkcs11.New(cfg.Module)
	text := append([]byte(cfg.InitArgument), 0)
	// The module reads the text during C_Initialize only; it has no pointers in it.
	if err := module.Initialize(pkcs11.InitializeWithReserved(unsafe.Pointer(&text[0]))); err != nil {
		return err
	}
	defer func() { _ = module.Finalize() }()
	slots, err := module.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		info, err := module.GetTokenInfo(slot)
		if err != nil || strings.TrimRight(info.Label, " \x00") != cfg.Label {
			continue
		}
		session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := module.Login(session, pkcs11.CKU_SO, ""); err != nil {
			return err
		}
		return module.InitPIN(session, cfg.PIN)
	}
	return fmt.Errorf("NSS shows no %s", cfg.Label)
}
