package hsm

/*
// The module neither keeps our buffers nor calls back into Go: what these take need not move to the heap.
#cgo noescape encrypt_update
#cgo nocallback encrypt_update
#cgo noescape create_data
#cgo nocallback create_data
#cgo noescape read_data
#cgo nocallback read_data
#cgo noescape read_label
#cgo nocallback read_label
#cgo noescape encrypt
#cgo nocallback encrypt
#cgo noescape sign
#cgo nocallback sign
#include <stdlib.h>
#include "cryptoki.h"

enum { LABEL_SIZE = 16 };

static CK_RV create_data(CK_FUNCTION_LIST *f, CK_ULONG session, CK_BBOOL private, void *label, void *value, CK_ULONG length, CK_ULONG *handle) {
	CK_ULONG class = 0; // CKO_DATA
	CK_BBOOL no = 0;
	CK_ATTRIBUTE template[] = {
		{0x000, &class, sizeof class}, // CKA_CLASS
		{0x001, &no, 1},               // CKA_TOKEN: a session object, gone with its session
		{0x002, &private, 1},          // CKA_PRIVATE: only for the logged-in user
		{0x003, label, LABEL_SIZE},    // CKA_LABEL
		{0x011, value, length},        // CKA_VALUE
	};
	return ((create_function)f->function[CREATE_OBJECT])(session, template, 5, handle);
}

static CK_RV read_data(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG handle, void *label, CK_ULONG *label_length, void *value, CK_ULONG *length) {
	CK_ATTRIBUTE template[] = {{0x003, label, *label_length}, {0x011, value, *length}};
	CK_RV rv = ((get_function)f->function[GET_ATTRIBUTE_VALUE])(session, handle, template, 2);
	*label_length = template[0].length;
	*length = template[1].length;
	return rv;
}

static CK_RV read_label(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG handle, void *label, CK_ULONG *label_length) {
	CK_ATTRIBUTE template[] = {{0x003, label, *label_length}};
	CK_RV rv = ((get_function)f->function[GET_ATTRIBUTE_VALUE])(session, handle, template, 1);
	*label_length = template[0].length;
	return rv;
}

static CK_RV destroy_object(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG handle) {
	return ((destroy_function)f->function[DESTROY_OBJECT])(session, handle);
}

static CK_RV encrypt_init_ecb(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG key) {
	CK_MECHANISM ecb = {0x1081, 0, 0}; // CKM_AES_ECB
	return ((init_function)f->function[ENCRYPT_INIT])(session, &ecb, key);
}

static CK_RV encrypt(CK_FUNCTION_LIST *f, CK_ULONG session, void *in, CK_ULONG n, void *out, CK_ULONG *m) {
	return ((crypt_function)f->function[ENCRYPT])(session, in, n, out, m);
}

static CK_RV sign_init(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG mechanism, CK_ULONG key) {
	CK_MECHANISM plain = {mechanism, 0, 0};
	return ((init_function)f->function[SIGN_INIT])(session, &plain, key);
}

static CK_RV sign(CK_FUNCTION_LIST *f, CK_ULONG session, void *in, CK_ULONG n, void *out, CK_ULONG *m) {
	return ((crypt_function)f->function[SIGN])(session, in, n, out, m);
}

static CK_RV encrypt_update(CK_FUNCTION_LIST *f, CK_ULONG session, void *in, CK_ULONG n, void *out, CK_ULONG *m) {
	return ((crypt_function)f->function[ENCRYPT_UPDATE])(session, in, n, out, m);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// functionList calls a module with the caller's own buffers. The ordinary binding copies what it sends and
// receives through the C heap, which is not wiped, and asks for sizes first, which costs a second round trip:
// neither will do for cards and for AES blocks.
type functionList struct{ list *C.CK_FUNCTION_LIST }

// functionListOf returns the list that the binding calls. It is read out of the binding, whose version go.mod fixes:
// asking the module again will not do, since p11-kit's client gives another instance, with sessions of its own, to each
// who asks.
func functionListOf(module *pkcs11.Ctx) (*functionList, error) {
	binding := (*struct {
		ctx *struct {
			handle unsafe.Pointer
			list   *C.CK_FUNCTION_LIST
		}
	})(unsafe.Pointer(module))
	list := binding.ctx.list
	if list == nil || list.major < 2 || list.major > 3 {
		return nil, errors.New("hsm: the module has no function list of PKCS#11 v2 or v3")
	}
	return &functionList{list}, nil
}

// createData makes a CKO_DATA session object of value, which must not be empty.
func (f *functionList) createData(s pkcs11.SessionHandle, form DataObjects, label [labelSize]byte, value []byte) (pkcs11.ObjectHandle, error) {
	var handle C.CK_ULONG
	private := C.uchar(1)
	if form == PublicData {
		private = 0
	}
	rv := C.create_data(f.list, C.CK_ULONG(s), private, unsafe.Pointer(&label[0]), unsafe.Pointer(&value[0]), C.CK_ULONG(len(value)), &handle)
	return pkcs11.ObjectHandle(handle), check(rv)
}

// readData copies an object's CKA_LABEL and CKA_VALUE into label and dst and returns the value's length.
func (f *functionList) readData(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, label *[labelSize]byte, dst []byte) (int, error) {
	m, n := C.CK_ULONG(labelSize), C.CK_ULONG(len(dst))
	rv := C.read_data(f.list, C.CK_ULONG(s), C.CK_ULONG(o), unsafe.Pointer(&label[0]), &m, unsafe.Pointer(&dst[0]), &n)
	if rv == C.CK_RV(pkcs11.CKR_BUFFER_TOO_SMALL) && n == ^C.CK_ULONG(0) { // CK_UNAVAILABLE_INFORMATION: it is dst
		return 0, fmt.Errorf("hsm: a buffer of %d bytes is too small for the object", len(dst))
	}
	if err := check(rv); err != nil {
		return 0, err
	}
	if m != labelSize {
		return 0, &lengthError{"C_GetAttributeValue", int(m), labelSize}
	}
	if n > C.CK_ULONG(len(dst)) {
		return 0, &lengthError{"C_GetAttributeValue", int(n), len(dst)}
	}
	return int(n), nil
}

// readLabel returns an object's CKA_LABEL.
func (f *functionList) readLabel(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) (label [labelSize]byte, err error) {
	m := C.CK_ULONG(labelSize)
	if err := check(C.read_label(f.list, C.CK_ULONG(s), C.CK_ULONG(o), unsafe.Pointer(&label[0]), &m)); err != nil {
		return label, err
	}
	if m != labelSize {
		return label, &lengthError{"C_GetAttributeValue", int(m), labelSize}
	}
	return label, nil
}

func (f *functionList) destroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	return check(C.destroy_object(f.list, C.CK_ULONG(s), C.CK_ULONG(o)))
}

// encryptInitECB opens an AES-ECB operation on the session; encryptUpdate feeds it.
func (f *functionList) encryptInitECB(s pkcs11.SessionHandle, key pkcs11.ObjectHandle) error {
	return check(C.encrypt_init_ecb(f.list, C.CK_ULONG(s), C.CK_ULONG(key)))
}

// encryptUpdate encrypts whole blocks; dst and src have the same length and do not overlap, or are the same.
func (f *functionList) encryptUpdate(s pkcs11.SessionHandle, dst, src []byte) error {
	n := C.CK_ULONG(len(dst))
	rv := C.encrypt_update(f.list, C.CK_ULONG(s), unsafe.Pointer(&src[0]), C.CK_ULONG(len(src)), unsafe.Pointer(&dst[0]), &n)
	return wantLength("C_EncryptUpdate", rv, n, len(src))
}

// encrypt is encryptUpdate that ends the operation.
func (f *functionList) encrypt(s pkcs11.SessionHandle, dst, src []byte) error {
	n := C.CK_ULONG(len(dst))
	rv := C.encrypt(f.list, C.CK_ULONG(s), unsafe.Pointer(&src[0]), C.CK_ULONG(len(src)), unsafe.Pointer(&dst[0]), &n)
	return wantLength("C_Encrypt", rv, n, len(src))
}

// sign returns the signature or MAC of message, size bytes, by a mechanism without parameters.
func (f *functionList) sign(s pkcs11.SessionHandle, mechanism uint, key pkcs11.ObjectHandle, size int, message []byte) ([]byte, error) {
	if err := check(C.sign_init(f.list, C.CK_ULONG(s), C.CK_ULONG(mechanism), C.CK_ULONG(key))); err != nil {
		return nil, err
	}
	out := make([]byte, 2*size) // room for a module that wants more than it fills
	in, n := unsafe.Pointer(unsafe.SliceData(message)), C.CK_ULONG(len(out))
	rv := C.sign(f.list, C.CK_ULONG(s), in, C.CK_ULONG(len(message)), unsafe.Pointer(&out[0]), &n)
	if rv == C.CK_RV(pkcs11.CKR_BUFFER_TOO_SMALL) && n > C.CK_ULONG(len(out)) && n <= 1<<16 { // the operation is still active
		out = make([]byte, n)
		rv = C.sign(f.list, C.CK_ULONG(s), in, C.CK_ULONG(len(message)), unsafe.Pointer(&out[0]), &n)
	}
	return out[:size], wantLength("C_Sign", rv, n, size)
}

func wantLength(function string, rv C.CK_RV, got C.CK_ULONG, want int) error {
	if err := check(rv); err != nil {
		return err
	}
	if got != C.CK_ULONG(want) {
		return &lengthError{function, int(got), want}
	}
	return nil
}

// cString copies s to the C heap; free gives it back.
func cString(s string) (p unsafe.Pointer, free func()) {
	p = unsafe.Pointer(C.CString(s))
	return p, func() { C.free(p) }
}

func check(rv C.CK_RV) error {
	if rv == 0 {
		return nil
	}
	return pkcs11.Error(rv)
}
