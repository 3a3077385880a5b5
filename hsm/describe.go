package hsm

import (
	"context"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Description is what a module says of itself and of the hsm token.
type Description struct {
	Library      string   `json:"library"` // manufacturer, description and version of the library
	Cryptoki     string   `json:"cryptoki"`
	Token        string   `json:"token"` // label
	Manufacturer string   `json:"manufacturer"`
	Model        string   `json:"model"`
	Serial       string   `json:"serial"`
	Firmware     string   `json:"firmware"`
	Mechanisms   []string `json:"mechanisms"` // those that the appliance can use; being listed proves nothing, see [Engine.Probe]
	Listed       int      `json:"mechanisms_listed"`
}

// named are the mechanisms that the appliance uses.
var named = []struct {
	mechanism uint
	name      string
}{
	{pkcs11.CKM_AES_KEY_GEN, "CKM_AES_KEY_GEN"},
	{pkcs11.CKM_AES_ECB, "CKM_AES_ECB"},
	{pkcs11.CKM_AES_GCM, "CKM_AES_GCM"},
	{pkcs11.CKM_GENERIC_SECRET_KEY_GEN, "CKM_GENERIC_SECRET_KEY_GEN"},
	{pkcs11.CKM_SHA256_HMAC, "CKM_SHA256_HMAC"},
	{pkcs11.CKM_EC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"},
	{pkcs11.CKM_ECDSA, "CKM_ECDSA"},
	{pkcs11.CKM_ECDH1_DERIVE, "CKM_ECDH1_DERIVE"},
	{ckmECEdwardsKeyPairGen, "CKM_EC_EDWARDS_KEY_PAIR_GEN"},
	{ckmEdDSA, "CKM_EDDSA"},
}

// Describe asks the module.
func (e *Engine) Describe(ctx context.Context) (Description, error) {
	var about Description
	err := e.do(ctx, func(s *session) error {
		session, err := e.module.GetSessionInfo(s.handle)
		if err != nil {
			return err
		}
		library, err := e.module.GetInfo()
		if err != nil {
			return err
		}
		token, err := e.module.GetTokenInfo(session.SlotID)
		if err != nil {
			return err
		}
		listed, err := e.module.GetMechanismList(session.SlotID)
		if err != nil {
			return err
		}
		about = describe(library, token, listed)
		return nil
	})
	if err != nil {
		return Description{}, fmt.Errorf("hsm: describe %s: %w", e.cfg.Module, err)
	}
	return about, nil
}

func describe(library pkcs11.Info, token pkcs11.TokenInfo, listed []*pkcs11.Mechanism) Description {
	version := func(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
	d := Description{
		Library:      padded(library.ManufacturerID) + ", " + padded(library.LibraryDescription) + " " + version(library.LibraryVersion),
		Cryptoki:     version(library.CryptokiVersion),
		Token:        padded(token.Label),
		Manufacturer: padded(token.ManufacturerID),
		Model:        padded(token.Model),
		Serial:       padded(token.SerialNumber),
		Firmware:     version(token.FirmwareVersion),
		Mechanisms:   []string{},
		Listed:       len(listed),
	}
	there := make(map[uint]bool)
	for _, m := range listed {
		there[m.Mechanism] = true
	}
	for _, m := range named {
		if there[m.mechanism] {
			d.Mechanisms = append(d.Mechanisms, m.name)
		}
	}
	return d
}
