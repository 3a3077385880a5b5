package hsm

/*
#cgo noescape ecdh_derive
#cgo nocallback ecdh_derive
#cgo noescape gcm_crypt
#cgo nocallback gcm_crypt

#include "cryptoki.h"

static CK_RV ecdh_derive(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG key, void *point, CK_ULONG point_length, void *out, CK_ULONG *out_length) {
	CK_ECDH1_DERIVE_PARAMS params = {1, 0, 0, point_length, point};    // CKD_NULL
	CK_MECHANISM ecdh = {0x1050, &params, sizeof params};           // CKM_ECDH1_DERIVE
	CK_ULONG class = 4, type = 0x10, length = *out_length, handle = 0; // CKO_SECRET_KEY, CKK_GENERIC_SECRET
	CK_BBOOL yes = 1, no = 0;
	CK_ATTRIBUTE template[] = {
		{0x000, &class, sizeof class},
		{0x100, &type, sizeof type},
		{0x001, &no, 1},  // CKA_TOKEN: a session object
		{0x002, &yes, 1}, // CKA_PRIVATE
		{0x103, &no, 1},  // CKA_SENSITIVE: it is read once, below
		{0x162, &yes, 1}, // CKA_EXTRACTABLE
		{0x161, &length, sizeof length},
	};
	CK_RV rv = ((derive_function)f->function[DERIVE_KEY])(session, &ecdh, key, template, sizeof template / sizeof *template, &handle);
	if (rv) return rv;
	CK_ATTRIBUTE value[] = {{0x011, out, *out_length}};
	rv = ((get_function)f->function[GET_ATTRIBUTE_VALUE])(session, handle, value, 1);
	*out_length = value[0].length;
	CK_RV destroyed = ((destroy_function)f->function[DESTROY_OBJECT])(session, handle);
	return rv ? rv : destroyed;
}

static CK_RV gcm_crypt(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG key, int encrypt, void *iv, CK_ULONG iv_length, void *aad, CK_ULONG aad_length,
		void *in, CK_ULONG n, void *out, CK_ULONG *m, int *begun) {
	CK_GCM_PARAMS params = {iv, iv_length, 8 * iv_length, aad, aad_length, 128};
	CK_MECHANISM gcm = {0x1087, &params, sizeof params}; // CKM_AES_GCM
	CK_RV rv = ((init_function)f->function[encrypt ? ENCRYPT_INIT : DECRYPT_INIT])(session, &gcm, key);
	if (rv) return rv;
	*begun = 1;
	return ((crypt_function)f->function[encrypt ? ENCRYPT : DECRYPT])(session, in, n, out, m);
}
*/
import "C"

import (
	"unsafe"

	"github.com/miekg/pkcs11"
)

// ecdhSecretSize is the length of P-256's shared secret: the x coordinate (RFC 9180, section 7.1).
const ecdhSecretSize = 32

// deriveECDH reads the shared secret of key and the other side's point into secret, which has [ecdhSecretSize] bytes.
// In between it is a session object of this session, which is destroyed; where that fails the session must be closed.
func (f *functionList) deriveECDH(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, point, secret []byte) error {
	n := C.CK_ULONG(len(secret))
	rv := C.ecdh_derive(f.list, C.CK_ULONG(s), C.CK_ULONG(key), unsafe.Pointer(&point[0]), C.CK_ULONG(len(point)), unsafe.Pointer(&secret[0]), &n)
	if err := check(rv); err != nil {
		return err
	}
	if n != C.CK_ULONG(len(secret)) {
		return &lengthError{"C_GetAttributeValue", int(n), len(secret)}
	}
	return nil
}

// gcm runs AES-GCM with a 128-bit tag and returns the number of bytes in dst. additional must not be empty. begun says
// that the mechanism and the key were accepted, so that an error is about in.
func (f *functionList) gcm(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, encrypt bool, dst, nonce, in, additional []byte) (written int, begun bool, err error) {
	n, direction, started := C.CK_ULONG(len(dst)), C.int(0), C.int(0)
	input := in
	if len(in) == 0 {
		input = make([]byte, 1) // SoftHSM2 takes no null pointer, though the length is 0
	}
	if encrypt {
		direction = 1
	}
	rv := C.gcm_crypt(f.list, C.CK_ULONG(s), C.CK_ULONG(key), direction, unsafe.Pointer(&nonce[0]), C.CK_ULONG(len(nonce)),
		unsafe.Pointer(&additional[0]), C.CK_ULONG(len(additional)), unsafe.Pointer(&input[0]), C.CK_ULONG(len(in)), unsafe.Pointer(&dst[0]), &n, &started)
	if err := check(rv); err != nil {
		return 0, started == 1, err
	}
	if n > C.CK_ULONG(len(dst)) {
		return 0, true, &lengthError{"AES-GCM", int(n), len(dst)}
	}
	return int(n), true, nil
}
