package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Provision initializes a fresh hsm token with a label and both PINs, on the first slot that has none. It refuses
// a label that is taken, and it never touches an hsm token that is initialized.
func Provision(cfg Config, securityOfficerPIN string) error {
	module, err := load(cfg.Module, cfg.Environment)
	if err != nil {
		return err
	}
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		return fmt.Errorf("hsm: initialize %s: %w", cfg.Module, err)
	}
	defer func() { _ = module.Finalize() }()
	if strings.HasPrefix(cfg.Label, tokenScheme) {
		return fmt.Errorf("hsm: a new hsm token is named by its label, not by the URI %q", cfg.Label)
	}
	if _, _, err := findSlot(module, cfg.Label); !errors.Is(err, ErrNoToken) {
		return errors.Join(fmt.Errorf("hsm: an hsm token labelled %q exists already", cfg.Label), err)
	}
	slot, err := freeSlot(module)
	if err != nil {
		return err
	}
	if err := module.InitToken(slot, securityOfficerPIN, cfg.Label); err != nil {
		return fmt.Errorf("hsm: initialize hsm token %q: %w", cfg.Label, err)
	}
	// SoftHSM2 gives a new hsm token another slot number.
	if slot, _, err = findSlot(module, cfg.Label); err != nil {
		return err
	}
	session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("hsm: open a session on %q: %w", cfg.Label, err)
	}
	if err := module.Login(session, pkcs11.CKU_SO, securityOfficerPIN); err != nil {
		return fmt.Errorf("hsm: log in as security officer: %w", err)
	}
	if err := module.InitPIN(session, cfg.PIN); err != nil {
		return fmt.Errorf("hsm: set the user PIN: %w", err)
	}
	return nil
}

// Provisioned reports whether an hsm token with the label exists.
func Provisioned(cfg Config) (bool, error) {
	module, err := load(cfg.Module, cfg.Environment)
	if err != nil {
		return false, err
	}
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		return false, fmt.Errorf("hsm: initialize %s: %w", cfg.Module, err)
	}
	defer func() { _ = module.Finalize() }()
	_, _, err = findSlot(module, cfg.Label)
	if errors.Is(err, ErrNoToken) {
		return false, nil
	}
	return err == nil, err
}

func freeSlot(module *pkcs11.Ctx) (uint, error) {
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("hsm: list slots: %w", err)
	}
	for _, slot := range slots {
		info, err := module.GetTokenInfo(slot)
		if err == nil && info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("hsm: no slot is free for a new hsm token")
}
