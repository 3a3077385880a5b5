package hsm

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// Stray is an object on the hsm token that the appliance does not know what to do with.
type Stray struct {
	Class  string `json:"class"` // e.g. "secret key"
	Label  string `json:"label"`
	ID     string `json:"id"` // CKA_ID in hex
	Reason string `json:"reason"`
}

// Keys lists what is on the hsm token: the keys of the roles in specs, each inspected, and every other object with the
// reason why it is not one of them. A key that is there twice is a stray, both times: which one is meant cannot be known.
func (e *Engine) Keys(ctx context.Context, specs []Spec) ([]Birth, []Stray, error) {
	objects, err := e.objects(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("hsm: list the hsm token's objects: %w", err)
	}
	count := make(map[string]int)
	for _, o := range objects {
		count[o.place()]++
	}
	var births []Birth
	var strays []Stray
	for _, o := range objects {
		key, spec, reason := o.belongs(specs)
		switch {
		case reason != "":
		case count[o.place()] > 1:
			reason = "more than one object has this class, id and label"
		case o.class == pkcs11.CKO_PUBLIC_KEY:
			if !slices.ContainsFunc(objects, func(p tokenObject) bool { return p.class == spec.Kind.class() && string(p.id) == string(o.id) }) {
				reason = "its private half is not there"
			}
		default:
			birth, err := e.Inspect(ctx, key, spec)
			if err != nil {
				return nil, nil, fmt.Errorf("hsm: inspect %s: %w", key.Label(), err)
			}
			births = append(births, birth)
		}
		if reason != "" {
			strays = append(strays, Stray{Class: className(o.class), Label: o.label, ID: hex.EncodeToString(o.id), Reason: reason})
		}
	}
	slices.SortFunc(births, func(a, b Birth) int { return strings.Compare(a.Label, b.Label) })
	return births, strays, nil
}

// Destroy removes a key, with its public half, and makes sure that it is gone.
func (e *Engine) Destroy(ctx context.Context, key Key, kind Kind) error {
	if err := e.destroy(ctx, key, kind); err != nil {
		return fmt.Errorf("hsm: destroy %s: %w", key.Label(), err)
	}
	there, err := e.Exists(ctx, key, kind)
	if err == nil && there {
		err = errors.New("it is still there")
	}
	if err != nil {
		return fmt.Errorf("hsm: after destroying %s: %w", key.Label(), err)
	}
	return nil
}

// tokenObject is what an object says of itself.
type tokenObject struct {
	class uint
	id    []byte
	label string
}

// place is what no two objects may share.
func (o tokenObject) place() string { return fmt.Sprintf("%d %x %s", o.class, o.id, o.label) }

// belongs finds the key that an object is, or says why it is none.
func (o tokenObject) belongs(specs []Spec) (Key, Spec, string) {
	if len(o.id) <= 4 {
		return Key{}, Spec{}, "its id does not name a role and a version"
	}
	n := len(o.id) - 4
	key := Key{Role(o.id[:n]), binary.BigEndian.Uint32(o.id[n:])}
	i := slices.IndexFunc(specs, func(s Spec) bool { return s.Role == key.Role })
	switch {
	case i < 0:
		return key, Spec{}, "its id names no role of this appliance"
	case o.label != key.Label():
		return key, Spec{}, fmt.Sprintf("its id says %s, its label does not", key.Label())
	case o.class != specs[i].Kind.class() && (o.class != pkcs11.CKO_PUBLIC_KEY || specs[i].Kind.class() != pkcs11.CKO_PRIVATE_KEY):
		return key, Spec{}, fmt.Sprintf("a key of kind %s is no %s", specs[i].Kind, className(o.class))
	}
	return key, specs[i], ""
}

// objects lists all token objects that the user sees.
func (e *Engine) objects(ctx context.Context) ([]tokenObject, error) {
	var list []tokenObject
	err := e.do(ctx, func(s *session) error {
		handles, err := e.findAll(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)})
		if err != nil {
			return err
		}
		list = make([]tokenObject, 0, len(handles))
		for _, handle := range handles {
			o, err := e.describe(s, handle)
			if err != nil {
				return err
			}
			list = append(list, o)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// findAll returns every object that a template matches.
func (e *Engine) findAll(s *session, template []*pkcs11.Attribute) (handles []pkcs11.ObjectHandle, err error) {
	e.shelf.RLock()
	defer e.shelf.RUnlock()
	if err := e.module.FindObjectsInit(s.handle, template); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.module.FindObjectsFinal(s.handle)) }()
	for {
		page, _, err := e.module.FindObjects(s.handle, 64)
		if err != nil || len(page) == 0 {
			return handles, err
		}
		handles = append(handles, page...)
	}
}

func (e *Engine) describe(s *session, handle pkcs11.ObjectHandle) (tokenObject, error) {
	var o tokenObject
	for _, attribute := range []uint{pkcs11.CKA_CLASS, pkcs11.CKA_LABEL, pkcs11.CKA_ID} {
		got, err := e.module.GetAttributeValue(s.handle, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
		if isCode(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID) {
			continue // a data object has no id
		}
		if err != nil {
			return o, err
		}
		switch value := got[0].Value; attribute {
		case pkcs11.CKA_CLASS:
			o.class = ulong(value)
		case pkcs11.CKA_LABEL:
			o.label = string(value)
		case pkcs11.CKA_ID:
			o.id = value
		}
	}
	return o, nil
}

// ulong reads a CK_ULONG in this machine's byte order.
func ulong(b []byte) uint {
	switch len(b) {
	case 8:
		return uint(binary.NativeEndian.Uint64(b))
	case 4:
		return uint(binary.NativeEndian.Uint32(b))
	default:
		return ^uint(0)
	}
}

func className(class uint) string {
	switch class {
	case pkcs11.CKO_SECRET_KEY:
		return "secret key"
	case pkcs11.CKO_PRIVATE_KEY:
		return "private key"
	case pkcs11.CKO_PUBLIC_KEY:
		return "public key"
	case pkcs11.CKO_CERTIFICATE:
		return "certificate"
	case pkcs11.CKO_DATA:
		return "data"
	default:
		return fmt.Sprintf("class 0x%x", class)
	}
}

// alone makes or destroys an object on the hsm token while no search is under way in this process. SoftHSM2 2.6.1 reads every
// object back from its file for a search, also one that another call is still writing, whose attributes it then drops: the call
// fails with CKR_GENERAL_ERROR, or leaves an object that no search finds again.
func (e *Engine) alone(change func() error) error {
	e.shelf.Lock()
	defer e.shelf.Unlock()
	return change()
}

// destroyOnToken destroys an object on the hsm token. One that is gone already is no error: SoftHSM2 shows an object twice that
// was made while another process changed the hsm token, and both are the same.
func (e *Engine) destroyOnToken(s pkcs11.SessionHandle, handle pkcs11.ObjectHandle) error {
	err := e.alone(func() error { return e.module.DestroyObject(s, handle) })
	if isCode(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
		return nil
	}
	return err
}
