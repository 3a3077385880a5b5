package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
)

// The roles of the appliance's keys.
const (
	roleTokenize      hsm.Role = "tokenize"       // tokens; losing it loses them, so it is recoverable
	roleKEK           hsm.Role = "kek"            // seals webhook secrets and connector credentials
	roleLedger        hsm.Role = "ledger"         // signs checkpoints and nothing else
	roleLedgerEd25519 hsm.Role = "ledger-ed25519" // for public witnesses, which want Ed25519
	roleTLS           hsm.Role = "tls"            // the listeners
	roleTLSClient     hsm.Role = "tls-client"     // mutual TLS to directory server and acquirer
	roleIntake        hsm.Role = "intake"         // sealed cards
	roleAPIKey        hsm.Role = "apikey"
	roleReturn        hsm.Role = "return" // return secrets, checkout sessions, repeated requests
	roleOrigin        hsm.Role = "origin" // hides shoppers' addresses
)

// keySpecs are all keys of an appliance, in the order in which they are made.
var keySpecs = []hsm.Spec{
	{Role: roleTokenize, Kind: hsm.AESEncrypt, Class: hsm.Recoverable},
	{Role: roleKEK, Kind: hsm.AESWrap, Class: hsm.Recoverable},
	{Role: roleLedger, Kind: hsm.ECSign, Class: hsm.Bound},
	{Role: roleLedgerEd25519, Kind: hsm.Ed25519Sign, Class: hsm.Bound, Optional: true},
	{Role: roleTLS, Kind: hsm.ECSign, Class: hsm.Bound},
	{Role: roleTLSClient, Kind: hsm.ECSign, Class: hsm.Bound},
	{Role: roleIntake, Kind: hsm.ECDerive, Class: hsm.Bound, Optional: true}, // without it cards are entered by the plain form
	{Role: roleAPIKey, Kind: hsm.HMAC, Class: hsm.Bound},
	{Role: roleReturn, Kind: hsm.HMAC, Class: hsm.Bound},
	{Role: roleOrigin, Kind: hsm.HMAC, Class: hsm.Bound},
}

// rotationRefused says of each role whose key cannot be replaced by a new version why not. All others can be.
var rotationRefused = map[hsm.Role]string{
	roleLedger: "auditors have pinned the log's public key, and a log is signed by one key from its first entry to its last: " +
		"begin a new log under another ledger.origin instead",
	roleLedgerEd25519: "witnesses know the log by this key: begin a new log under another ledger.origin instead",
	roleAPIKey: "every API key is kept as a MAC under this version, and does not say which: all of them would end at once. " +
		"Revoke and make API keys one by one instead",
	roleReturn: "every merchant's return secret and every open checkout session is derived from this version: all shops would " +
		"refuse their customers' returns until each has the new secret",
}

// idleRoles are those whose active version may be retired with no successor.
var idleRoles = map[hsm.Role]bool{roleIntake: true}

// specOf returns how keys of a role are made.
func specOf(role hsm.Role) (hsm.Spec, error) {
	for _, spec := range keySpecs {
		if spec.Role == role {
			return spec, nil
		}
	}
	return hsm.Spec{}, fmt.Errorf("%q is no role of this appliance's keys; there are %s", role, strings.Join(roleNames(), ", "))
}

func roleNames() []string {
	names := make([]string, len(keySpecs))
	for i, spec := range keySpecs {
		names[i] = string(spec.Role)
	}
	return names
}

// keyEncryption is the key encryption key of envelopes: the active version seals, and the older ones still open.
func keyEncryption(engine *hsm.Engine, keys keyring) (tink.AEAD, error) {
	usable := keys.usable(roleKEK)
	if len(usable) == 0 {
		return sealing{}, nil
	}
	first, sealed := usable[0], false
	if active, ok := keys.active(roleKEK); ok {
		first, sealed = active, true
	}
	client := engine.KMSClient(first, usable...)
	remote, err := client.GetAEAD(client.URI(roleKEK))
	return sealing{remote, sealed}, err
}

// The adapters below introduce hsm's types to the packages that use them, and translate hsm's errors into those
// that cross the floors.

func translateHSM(err error) error {
	switch {
	case errors.Is(err, hsm.ErrLost):
		return fmt.Errorf("%w: %w", pci.ErrGone, err)
	case errors.Is(err, hsm.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	default:
		return err
	}
}

// keeper is what custody keeps cards in, by the configuration.
func keeper(cfg config.Config, engine *hsm.Engine) custody.Objects {
	if cfg.Custody.Kind == config.SealedCustody {
		return sealedCards{engine.NewSealed()}
	}
	return objects{engine.NewObjects()}
}

// objects meets custody.Objects. What an object is bound to is custody's to know.
type objects struct{ *hsm.Objects }

func (o objects) Create(ctx context.Context, value []byte, _ string) (uint64, error) {
	handle, err := o.Objects.Create(ctx, value)
	return handle, translateHSM(err)
}

func (o objects) Read(ctx context.Context, handle uint64, dst []byte, _ string) (int, error) {
	n, err := o.Objects.Read(ctx, handle, dst)
	return n, translateHSM(err)
}

func (o objects) Destroy(ctx context.Context, handle uint64) error {
	return translateHSM(o.Objects.Destroy(ctx, handle))
}

// sealedCards meets custody.Objects.
type sealedCards struct{ *hsm.Sealed }

func (c sealedCards) Create(ctx context.Context, value []byte, binding string) (uint64, error) {
	handle, err := c.Sealed.Create(ctx, value, binding)
	return handle, translateHSM(err)
}

func (c sealedCards) Read(ctx context.Context, handle uint64, dst []byte, binding string) (int, error) {
	n, err := c.Sealed.Read(ctx, handle, dst, binding)
	return n, translateHSM(err)
}

func (c sealedCards) Destroy(ctx context.Context, handle uint64) error {
	return translateHSM(c.Sealed.Destroy(ctx, handle))
}

// blocks meets ff1.Encrypter.
type blocks struct{ *hsm.BlockCipher }

func (b blocks) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	return translateHSM(b.BlockCipher.EncryptBlocks(ctx, dst, src))
}

// mac meets merchant.MAC.
type mac struct{ *hsm.MAC }

func (m mac) Sum(ctx context.Context, message []byte) ([]byte, error) {
	sum, err := m.MAC.Sum(ctx, message)
	return sum, translateHSM(err)
}

// sealing meets tink.AEAD.
type sealing struct {
	kek   tink.AEAD // nil: there is no version at all
	seals bool      // there is an active version
}

var errNoKEK = errors.New("there is no active key encryption key (role kek)")

// Encrypt implements tink.AEAD.
func (s sealing) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	if !s.seals {
		return nil, errNoKEK
	}
	sealed, err := s.kek.Encrypt(plaintext, associatedData)
	return sealed, translateHSM(err)
}

// Decrypt implements tink.AEAD.
func (s sealing) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if s.kek == nil {
		return nil, errNoKEK
	}
	plain, err := s.kek.Decrypt(ciphertext, associatedData)
	return plain, translateHSM(err)
}
