package hsm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// ErrImport means that the module takes no keys in plain, which many HSMs rightly refuse.
var ErrImport = errors.New("hsm: this HSM takes no plain AES keys")

// Throwaway returns a block cipher under a known AES key of 16, 24 or 32 bytes, for published test vectors. The key is an
// object of the cipher's session, never on the hsm token, and ends with [BlockCipher.Close]. No key of the appliance is
// ever made this way.
func (e *Engine) Throwaway(ctx context.Context, key []byte) (*BlockCipher, error) {
	if !slices.Contains([]int{16, 24, 32}, len(key)) {
		return nil, fmt.Errorf("hsm: an AES key of %d bytes", len(key))
	}
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, key),
	}
	b := e.openCiphers(1, func(s *session) error {
		handle, err := e.module.CreateObject(s.handle, template)
		switch {
		case isDeviceFault(err):
			return err
		case err != nil:
			return fmt.Errorf("%w (%s)", ErrImport, err.Error()) // not wrapped: the device has done nothing wrong
		}
		return e.direct.encryptInitECB(s.handle, handle)
	})
	trial := make([]byte, 16)
	if err := b.EncryptBlocks(ctx, trial, trial); err != nil {
		b.Close()
		return nil, fmt.Errorf("hsm: a throwaway key: %w", err)
	}
	return b, nil
}
