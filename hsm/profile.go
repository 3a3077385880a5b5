package hsm

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// Profile is what one vendor's PKCS#11 does otherwise than the standard, or leaves open. The zero value is a module
// that follows PKCS#11 v2.40 to the letter and has AES-GCM. Profiles are files (firmware-config/providers), so an HSM
// that nobody here has seen needs a new file and no new code; `finpay doctor` finds out what belongs in it.
type Profile struct {
	// Name is the provider's, for reports.
	Name string `yaml:"name"`
	// Modules are the places where the library is installed, first choice first.
	Modules []string `yaml:"modules"`
	// InitArgument is passed to C_Initialize; Environment is set before the library is loaded.
	InitArgument string            `yaml:"init_argument"`
	Environment  map[string]string `yaml:"environment"`
	// UserType is the CK_USER_TYPE of C_Login; 0 means CKU_USER (1), since nothing logs in as the security officer.
	UserType uint `yaml:"user_type"`
	// OneCall means that calls from several threads at once are not safe in this module: they are made one after the other.
	OneCall bool `yaml:"one_call_at_a_time"`
	// PINPattern is a regular expression (RE2) that a PIN must match before it is tried: a PIN file of the wrong form must
	// not cost one of three tries. PINForm says the form in words.
	PINPattern string `yaml:"pin_pattern"`
	PINForm    string `yaml:"pin_form"`

	DataObjects DataObjects  `yaml:"data_objects"`
	Edwards     Edwards      `yaml:"ed25519"`
	HMACKey     HMACKey      `yaml:"hmac_key"`
	ECDH        ECDH         `yaml:"ecdh"`
	AEAD        Construction `yaml:"aead"`
	Backup      Backup       `yaml:"backup"`
	// OmitAttributes are left out of templates and not read back, because the module refuses them or does not keep them.
	OmitAttributes []AttributeKey `yaml:"omit_attributes"`
}

// DataObjects says how CKO_DATA session objects are made.
type DataObjects string

// The forms of data objects. Public ones are seen by sessions of this process that are not logged in; session objects
// are never seen by another one.
const (
	PrivateData DataObjects = "private" // the default
	PublicData  DataObjects = "public"
	NoData      DataObjects = "none"
)

// Edwards says how CKA_EC_PARAMS names Ed25519.
type Edwards string

// The forms of Ed25519's name: PKCS#11 v3.0 section 2.3.3 allows both, modules take one.
const (
	EdwardsName Edwards = "name" // PrintableString "edwards25519", the default
	EdwardsOID  Edwards = "oid"  // 1.3.101.112, RFC 8410
	NoEdwards   Edwards = "none"
)

// HMACKey says of which CKA_KEY_TYPE a key for CKM_SHA256_HMAC is.
type HMACKey string

// The types of HMAC keys.
const (
	GenericSecret HMACKey = "generic-secret" // the default
	SHA256HMAC    HMACKey = "sha256-hmac"    // CKK_SHA256_HMAC, still made by CKM_GENERIC_SECRET_KEY_GEN
)

// ECDH says how CKM_ECDH1_DERIVE takes the other side's point. KDFs other than NULL are of no use here: HPKE's KEM
// (RFC 9180, section 4.1) wants the shared secret itself.
type ECDH string

// The encodings of the point in CK_ECDH1_DERIVE_PARAMS.
const (
	RawPoint ECDH = "raw" // uncompressed, 65 bytes; the default
	DERPoint ECDH = "der" // the same in an OCTET STRING
	NoECDH   ECDH = "none"
)

// Construction is an authenticated encryption made of what the module has.
type Construction string

// The constructions of [AEAD].
const (
	GCM Construction = "gcm" // CKM_AES_GCM, the default
	EAX Construction = "eax" // see eax.go: needs CKM_AES_ECB only
)

// Backup says how keys of class [Recoverable] get out.
type Backup string

// The ways of backup.
const (
	BackupWrap  Backup = "wrap"  // wrapped under a key with CKA_TRUSTED; the default
	BackupClone Backup = "clone" // by the vendor's means, between its devices: the keys are made never extractable
)

// AttributeKey is a CK_ATTRIBUTE_TYPE, written by its name.
type AttributeKey uint

var omissible = map[string]AttributeKey{
	"CKA_WRAP_WITH_TRUSTED": pkcs11.CKA_WRAP_WITH_TRUSTED,
	"CKA_MODIFIABLE":        pkcs11.CKA_MODIFIABLE,
	"CKA_VERIFY_RECOVER":    pkcs11.CKA_VERIFY_RECOVER,
	"CKA_DERIVE":            pkcs11.CKA_DERIVE,
	"CKA_UNWRAP":            pkcs11.CKA_UNWRAP,
	"CKA_WRAP":              pkcs11.CKA_WRAP,
	"CKA_ENCRYPT":           pkcs11.CKA_ENCRYPT,
	"CKA_DECRYPT":           pkcs11.CKA_DECRYPT,
	"CKA_LOCAL":             pkcs11.CKA_LOCAL, // never set; not asked for where its value is not kept
}

// String returns the attribute's name.
func (a AttributeKey) String() string {
	for name, attribute := range omissible {
		if attribute == a {
			return name
		}
	}
	return fmt.Sprintf("attribute 0x%x", uint(a))
}

// UnmarshalText reads an attribute's name. Those that make a key secret cannot be left out.
func (a *AttributeKey) UnmarshalText(text []byte) error {
	found, ok := omissible[string(text)]
	if !ok {
		return fmt.Errorf("%q is not an attribute that may be left out of templates", text)
	}
	*a = found
	return nil
}

// Check reports a profile that contradicts itself.
func (p Profile) Check() error {
	var wrong []error
	one := func(setting, value string, allowed ...string) {
		if value != "" && !slices.Contains(allowed, value) {
			wrong = append(wrong, fmt.Errorf("%s: %q is not one of %s", setting, value, strings.Join(allowed, ", ")))
		}
	}
	one("data_objects", string(p.DataObjects), string(PrivateData), string(PublicData), string(NoData))
	one("ed25519", string(p.Edwards), string(EdwardsName), string(EdwardsOID), string(NoEdwards))
	one("hmac_key", string(p.HMACKey), string(GenericSecret), string(SHA256HMAC))
	one("ecdh", string(p.ECDH), string(RawPoint), string(DERPoint), string(NoECDH))
	one("aead", string(p.AEAD), string(GCM), string(EAX))
	one("backup", string(p.Backup), string(BackupWrap), string(BackupClone))
	if p.omits(pkcs11.CKA_WRAP_WITH_TRUSTED) && p.Backup != BackupClone {
		wrong = append(wrong, errors.New("omit_attributes: without CKA_WRAP_WITH_TRUSTED an extractable key could be wrapped under any key; set backup: clone"))
	}
	if _, err := regexp.Compile(p.PINPattern); err != nil {
		wrong = append(wrong, fmt.Errorf("pin_pattern: %w", err))
	}
	if p.PINPattern != "" && p.PINForm == "" {
		wrong = append(wrong, errors.New("pin_form: say in words what pin_pattern wants"))
	}
	return errors.Join(wrong...)
}

// checkPIN refuses a PIN of the wrong form before it is tried.
func (p Profile) checkPIN(pin string) error {
	if p.PINPattern == "" {
		return nil
	}
	pattern, err := regexp.Compile(p.PINPattern)
	if err != nil {
		return fmt.Errorf("hsm: pin_pattern of profile %s: %w", p.Name, err)
	}
	if !pattern.MatchString(pin) {
		return fmt.Errorf("%w before it was tried: %s wants %s in the PIN file", ErrPIN, p.Name, p.PINForm)
	}
	return nil
}

func (p Profile) userType() uint {
	if p.UserType == 0 {
		return pkcs11.CKU_USER
	}
	return p.UserType
}

func (p Profile) omits(attribute uint) bool {
	return slices.Contains(p.OmitAttributes, AttributeKey(attribute))
}

// notReported names the attributes of a key's birth that are not asked for.
func (p Profile) notReported() (names []string) {
	for _, a := range []AttributeKey{pkcs11.CKA_LOCAL, pkcs11.CKA_WRAP_WITH_TRUSTED} {
		if p.omits(uint(a)) {
			names = append(names, a.String())
		}
	}
	return names
}

// template leaves out what the module does not take.
func (p Profile) template(attributes []*pkcs11.Attribute) []*pkcs11.Attribute {
	return slices.DeleteFunc(attributes, func(a *pkcs11.Attribute) bool { return p.omits(a.Type) })
}

// extractable reports whether a key of the class may be wrapped at all.
func (p Profile) extractable(class Class) bool {
	return class == Recoverable && p.Backup != BackupClone
}

func (p Profile) construction() Construction {
	if p.AEAD == EAX {
		return EAX
	}
	return GCM
}

// edwardsParams returns CKA_EC_PARAMS of Ed25519.
func (p Profile) edwardsParams() []byte {
	if p.Edwards == EdwardsOID {
		return oidEd25519
	}
	return paramsEd25519
}
