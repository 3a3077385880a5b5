package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// ErrNoDataObjects means that the hsm token takes no data objects: the module says so, or the profile does.
var ErrNoDataObjects = errors.New("hsm: this hsm token keeps no data objects")

// dataApplication is the CKA_APPLICATION of every data object on the hsm token.
const dataApplication = "finpay"

// PutData keeps value, which is no secret, as the one data object of a label on the hsm token (CKO_DATA, CKA_TOKEN), and
// destroys those that had the label before. It makes the new one first and reads it back: whoever is interrupted leaves
// two, and never none. Changing CKA_VALUE in place would not do, since a module may tear it when the power fails.
func (e *Engine) PutData(ctx context.Context, label string, value []byte) error {
	err := e.do(ctx, func(s *session) error { return e.putData(s.handle, label, value) })
	if isCode(err, refusals...) {
		err = fmt.Errorf("%w: %w", ErrNoDataObjects, err)
	}
	if err != nil {
		return fmt.Errorf("hsm: keep %q on the hsm token: %w", label, err)
	}
	return nil
}

// refusals are how modules say that they never take such an object.
var refusals = []uint{pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_TEMPLATE_INCONSISTENT,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_TOKEN_WRITE_PROTECTED, pkcs11.CKR_ACTION_PROHIBITED}

// Data returns the values of the data objects of a label on the hsm token: none, one, or more after an interruption.
func (e *Engine) Data(ctx context.Context, label string) (values [][]byte, err error) {
	err = e.do(ctx, func(s *session) error {
		values = nil
		handles, err := e.findData(s.handle, label)
		if err != nil {
			return err
		}
		for _, handle := range handles {
			value, err := e.dataValue(s.handle, handle)
			if err != nil {
				return err
			}
			values = append(values, value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: read %q on the hsm token: %w", label, err)
	}
	return values, nil
}

func (e *Engine) putData(s pkcs11.SessionHandle, label string, value []byte) error {
	if e.cfg.Profile.DataObjects == NoData {
		return ErrNoDataObjects
	}
	older, err := e.findData(s, label)
	if err != nil {
		return err
	}
	before, err := e.countData(s, older, value)
	if err != nil {
		return err
	}
	made, err := e.createData(s, label, value)
	if err != nil {
		return err
	}
	// A module may answer OK and have lost an attribute: what no search finds, or reads otherwise, replaces nothing.
	all, err := e.findData(s, label)
	if err == nil {
		var after int
		if after, err = e.countData(s, all, value); err == nil && after <= before {
			err = errors.New("the object was made, and cannot be found and read")
		}
	}
	if err != nil {
		return errors.Join(err, e.destroyOnToken(s, made))
	}
	for _, handle := range older {
		if err := e.destroyOnToken(s, handle); err != nil {
			return fmt.Errorf("destroy the former one: %w", err)
		}
	}
	return nil
}

func (e *Engine) createData(s pkcs11.SessionHandle, label string, value []byte) (made pkcs11.ObjectHandle, err error) {
	err = e.alone(func() (err error) {
		made, err = e.module.CreateObject(s, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, e.cfg.Profile.DataObjects != PublicData),
			pkcs11.NewAttribute(pkcs11.CKA_APPLICATION, dataApplication),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE, value),
		})
		return err
	})
	return made, err
}

// countData counts the objects that have a value. Their handles would not tell which is which: a module may give an object another
// one with each search.
func (e *Engine) countData(s pkcs11.SessionHandle, handles []pkcs11.ObjectHandle, value []byte) (n int, err error) {
	for _, handle := range handles {
		got, err := e.dataValue(s, handle)
		if err != nil {
			return 0, err
		}
		if bytes.Equal(got, value) {
			n++
		}
	}
	return n, nil
}

func (e *Engine) findData(s pkcs11.SessionHandle, label string) ([]pkcs11.ObjectHandle, error) {
	return e.findAll(&session{handle: s}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	})
}

func (e *Engine) dataValue(s pkcs11.SessionHandle, handle pkcs11.ObjectHandle) ([]byte, error) {
	got, err := e.module.GetAttributeValue(s, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil {
		return nil, err
	}
	return got[0].Value, nil
}

// RoleHead is the role of the data object in which the log's head is kept. It has no key.
const RoleHead Role = "head"

// trialLabel is the label of the data object that a trial makes and destroys.
const trialLabel = "finpay doctor"

// head keeps a data object on the hsm token, replaces it, and takes it away again, with what an earlier trial has left.
func (t *trial) head() (detail string, err error) {
	value := []byte("a head, but shorter")
	defer func() {
		if left := t.e.destroyData(t.s, trialLabel); left != nil && err == nil {
			err = fmt.Errorf("C_DestroyObject: %w", left)
		}
	}()
	for range 2 {
		if err := t.e.putData(t.s, trialLabel, value); err != nil {
			return "", fmt.Errorf("C_CreateObject: %w", err)
		}
	}
	handles, err := t.e.findData(t.s, trialLabel)
	if err != nil || len(handles) != 1 {
		return "", fmt.Errorf("%d objects are there, where one was kept and replaced (%w)", len(handles), err)
	}
	got, err := t.e.dataValue(t.s, handles[0])
	if err != nil {
		return "", fmt.Errorf("C_GetAttributeValue: %w", err)
	}
	if !bytes.Equal(got, value) {
		return "", errors.New("another value was read than was kept")
	}
	return "kept on the hsm token, replaced, read, destroyed", nil
}

func (e *Engine) destroyData(s pkcs11.SessionHandle, label string) error {
	handles, err := e.findData(s, label)
	for _, handle := range handles {
		err = errors.Join(err, e.destroyOnToken(s, handle))
	}
	return err
}
