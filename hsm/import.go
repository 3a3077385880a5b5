package hsm

/*
#include "cryptoki.h"
#cgo noescape import_aes
#cgo nocallback import_aes

// import_aes creates an AES session object straight from the caller's buffer.
static CK_RV import_aes(CK_FUNCTION_LIST *f, CK_ULONG session, void *value, CK_ULONG length, void *id, CK_ULONG id_length, void *label,
	CK_ULONG label_length, CK_BBOOL encrypts, CK_BBOOL wraps, CK_BBOOL unwraps, CK_ULONG *handle) {
	CK_ULONG class = 4, type = 0x1f; // CKO_SECRET_KEY, CKK_AES
	CK_BBOOL yes = 1, no = 0;
	CK_ATTRIBUTE template[] = {
		{0x000, &class, sizeof class},
		{0x100, &type, sizeof type},
		{0x001, &no, 1},          // CKA_TOKEN: gone with its session
		{0x002, &no, 1},          // CKA_PRIVATE: a security officer sees public objects only
		{0x102, id, id_length},   // CKA_ID
		{0x003, label, label_length},
		{0x103, &yes, 1},         // CKA_SENSITIVE
		{0x162, &no, 1},          // CKA_EXTRACTABLE
		{0x170, &no, 1},          // CKA_MODIFIABLE
		{0x104, &encrypts, 1},    // CKA_ENCRYPT
		{0x105, &no, 1},          // CKA_DECRYPT
		{0x106, &wraps, 1},       // CKA_WRAP
		{0x107, &unwraps, 1},     // CKA_UNWRAP
		{0x108, &no, 1},          // CKA_SIGN
		{0x10a, &no, 1},          // CKA_VERIFY
		{0x10c, &no, 1},          // CKA_DERIVE
		{0x011, value, length},   // CKA_VALUE
		{0x086, &yes, 1},         // CKA_TRUSTED, last: left out unless it wraps
	};
	CK_ULONG count = sizeof template / sizeof template[0];
	if (!wraps) count--;
	return ((create_function)f->function[CREATE_OBJECT])(session, template, count, handle);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// Roles of the session objects that an [Import] makes. They are never on the hsm token.
const (
	roleImported      Role = "imported-kek"
	roleImportedCheck Role = "imported-kek-check"
)

// ImportedKEK is an AES-256 key encryption key that comes from outside, for the length of an [Import].
type ImportedKEK struct {
	Value []byte // 32 bytes; the caller keeps them in locked memory and wipes them
	Wraps bool   // it wraps, so the security officer marks it CKA_TRUSTED; otherwise it unwraps only
}

// Import holds key encryption keys as session objects. Each is there twice: once to wrap or unwrap and for nothing else,
// once to compute its check value and for nothing else.
type Import struct {
	module  *pkcs11.Ctx
	session pkcs11.SessionHandle
	count   int
}

// OpenImport imports key encryption keys before an [Engine] is opened on the same hsm token: PKCS#11 lets one kind of user
// be logged in at a time, and only the security officer may set CKA_TRUSTED. The officer is logged in only where a key
// wraps, and is logged out when OpenImport returns. The caller closes the import before the engine.
//
// The objects are public, as all that an officer makes, but sensitive: nobody reads their value.
func OpenImport(cfg Config, officerPIN string, keks []ImportedKEK) (_ *Import, err error) {
	module, err := load(cfg.Module, cfg.Environment)
	if err != nil {
		return nil, err
	}
	i := &Import{module: module}
	defer func() {
		if err != nil {
			_ = module.Finalize() // ends session, login and objects
			module.Destroy()
		}
	}()
	direct, err := functionListOf(module)
	if err != nil {
		return nil, err
	}
	if err := i.open(cfg); err != nil {
		return nil, err
	}
	officer := false
	for _, k := range keks {
		officer = officer || k.Wraps
	}
	if officer {
		if err := i.loginOfficer(cfg.Label, officerPIN); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, module.Logout(i.session)) }()
	}
	for _, k := range keks {
		if err := i.add(direct, k); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (i *Import) open(cfg Config) error {
	if err := initialize(i.module, cfg); err != nil {
		return err
	}
	slot, _, err := findSlot(i.module, cfg.Label)
	if err != nil {
		return err
	}
	if i.session, err = i.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
		return fmt.Errorf("hsm: open a session on %q: %w", cfg.Label, err)
	}
	return nil
}

func (i *Import) loginOfficer(label, pin string) error {
	err := i.module.Login(i.session, pkcs11.CKU_SO, pin)
	if isCode(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED) {
		return fmt.Errorf("%w: that of the security officer of hsm token %q (%w)", ErrPIN, label, err)
	}
	if err != nil {
		return fmt.Errorf("hsm: log in to %q as security officer: %w", label, err)
	}
	return nil
}

func (i *Import) add(direct *functionList, k ImportedKEK) error {
	if len(k.Value) != 32 {
		return fmt.Errorf("hsm: a key encryption key of %d bytes; 32 are wanted", len(k.Value))
	}
	i.count++
	for _, key := range []Key{i.Key(i.count - 1), i.check(i.count - 1)} {
		id, label := key.ID(), []byte(key.Label())
		uses := func(yes bool) C.CK_BBOOL {
			if yes {
				return 1
			}
			return 0
		}
		forCheck := key.Role == roleImportedCheck
		var handle C.CK_ULONG
		rv := C.import_aes(direct.list, C.CK_ULONG(i.session), unsafe.Pointer(&k.Value[0]), C.CK_ULONG(len(k.Value)),
			unsafe.Pointer(&id[0]), C.CK_ULONG(len(id)), unsafe.Pointer(&label[0]), C.CK_ULONG(len(label)),
			uses(forCheck), uses(!forCheck && k.Wraps), uses(!forCheck), &handle)
		if rv != 0 {
			return fmt.Errorf("hsm: import a key encryption key (an HSM that takes none in clear is backed up by its vendor's own means): %w", check(rv))
		}
	}
	return nil
}

// Key names the n-th key encryption key, from 0, for [Engine.Wrap] and [Engine.Unwrap].
func (i *Import) Key(n int) Key { return Key{roleImported, uint32(n + 1)} }

func (i *Import) check(n int) Key { return Key{roleImportedCheck, uint32(n + 1)} }

// Close destroys the key encryption keys with their session.
func (i *Import) Close() error {
	defer i.module.Destroy()
	err := i.module.CloseSession(i.session)
	if err != nil && !isCode(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_SESSION_HANDLE_INVALID) {
		return fmt.Errorf("hsm: destroy the imported keys: %w", err)
	}
	return nil
}
