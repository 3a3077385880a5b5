// What hsm calls of PKCS#11 v2.40 with its own buffers: the types of section 3 and of the mechanisms (Current Mechanisms,
// sections 2.3.6 and 2.12.3), and the places of functions in CK_FUNCTION_LIST (pkcs11f.h).
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef unsigned char CK_BBOOL;
typedef struct { CK_ULONG type; void *value; CK_ULONG length; } CK_ATTRIBUTE;
typedef struct { CK_ULONG mechanism; void *parameter; CK_ULONG length; } CK_MECHANISM;
typedef struct { CK_ULONG kdf; CK_ULONG shared_length; void *shared; CK_ULONG public_length; void *public; } CK_ECDH1_DERIVE_PARAMS;
typedef struct { void *iv; CK_ULONG iv_length; CK_ULONG iv_bits; void *aad; CK_ULONG aad_length; CK_ULONG tag_bits; } CK_GCM_PARAMS;
typedef struct { unsigned char major, minor; void *function[68]; } CK_FUNCTION_LIST;

enum {
	CREATE_OBJECT = 20, DESTROY_OBJECT = 22, GET_ATTRIBUTE_VALUE = 24, ENCRYPT_INIT = 29, ENCRYPT = 30, ENCRYPT_UPDATE = 31,
	DECRYPT_INIT = 33, DECRYPT = 34, SIGN_INIT = 42, SIGN = 43, DERIVE_KEY = 62,
};

typedef CK_RV (*create_function)(CK_ULONG session, CK_ATTRIBUTE *, CK_ULONG, CK_ULONG *handle);
typedef CK_RV (*destroy_function)(CK_ULONG session, CK_ULONG handle);
typedef CK_RV (*get_function)(CK_ULONG session, CK_ULONG handle, CK_ATTRIBUTE *, CK_ULONG);
typedef CK_RV (*init_function)(CK_ULONG session, CK_MECHANISM *, CK_ULONG key);
typedef CK_RV (*crypt_function)(CK_ULONG session, void *in, CK_ULONG, void *out, CK_ULONG *);
typedef CK_RV (*derive_function)(CK_ULONG session, CK_MECHANISM *, CK_ULONG key, CK_ATTRIBUTE *, CK_ULONG, CK_ULONG *handle);
