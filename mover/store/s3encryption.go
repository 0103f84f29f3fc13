package store

import (
	"net/http"

	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/estiba-dev/estiba/mover/store/settings"
)

// serverSide returns the client library's form of what the server is asked for; nil for nothing.
func serverSide(e settings.Encryption) encrypt.ServerSide {
	switch {
	case e.CustomerKey != nil:
		if key, err := encrypt.NewSSEC(e.CustomerKey); err == nil { // Validate has looked at its size
			return key
		}

		return nil
	case e.Algorithm != "":
		return managed(e)
	default:
		return nil
	}
}

// managed is encryption with keys that the server has. The client library's own
// kinds know fewer algorithms.
type managed settings.Encryption

// Type says that it concerns writing only.
func (m managed) Type() encrypt.Type {
	if m.Algorithm == settings.EncryptionS3 {
		return encrypt.S3
	}

	return encrypt.KMS
}

// Marshal adds the headers.
func (m managed) Marshal(h http.Header) {
	h.Set(encrypt.SseGenericHeader, m.Algorithm)

	if m.KMSKeyID != "" {
		h.Set(encrypt.SseKmsKeyID, m.KMSKeyID)
	}
}
