package store

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// The protocol between Client and Broker is HTTP/2 over one connection. Both
// ends are the same binary, so it has no versions.
//
//	GET    /blobs/{id}?offset=&length=   content; length -1 for all of it
//	PUT    /blobs/{id}?modtime=1         content -> written (only when modtime was asked for)
//	DELETE /blobs/{id}
//	GET    /metadata/{id}                -> blob.Metadata
//	GET    /blobs?prefix=                -> lines of listLine, the last of which says how many there were
//	GET    /capacity                     -> blob.Capacity
//
// A failure is a status of 400 or more with a failure as its body.
const (
	pathBlobs    = "/blobs"
	pathMetadata = "/metadata"
	pathCapacity = "/capacity"

	queryOffset  = "offset"
	queryLength  = "length"
	queryPrefix  = "prefix"
	queryModTime = "modtime"
)

// Codes of failures besides those of package engine: kopia's sentinels.
const (
	wireNotFound      = "NotFound"
	wireInvalidRange  = "InvalidRange"
	wireAlreadyExists = "AlreadyExists"
	wireNotAVolume    = "NotAVolume"
	wireNoSetTime     = "SetTimeUnsupported"
	wireNoOption      = "UnsupportedOption"
	wireNoObjectLock  = "UnsupportedObjectLock"
)

// failure is an error on the wire.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// written is the answer to a PUT that asked for the time of the blob.
type written struct {
	ModTime time.Time `json:"modTime"`
}

// listLine is one line of a listing: a blob, or its end, or a failure in its middle.
type listLine struct {
	Blob    *blob.Metadata `json:"blob,omitempty"`
	Count   *int           `json:"count,omitempty"`
	Failure *failure       `json:"failure,omitempty"`
}

// wireSentinel pairs a code with one of kopia's sentinels.
type wireSentinel struct {
	code string
	err  error
}

func wireSentinels() []wireSentinel {
	return []wireSentinel{
		{wireNotFound, blob.ErrBlobNotFound},
		{wireInvalidRange, blob.ErrInvalidRange},
		{wireAlreadyExists, blob.ErrBlobAlreadyExists},
		{wireNotAVolume, blob.ErrNotAVolume},
		{wireNoSetTime, blob.ErrSetTimeUnsupported},
		{wireNoOption, blob.ErrUnsupportedPutBlobOption},
		{wireNoObjectLock, blob.ErrUnsupportedObjectLock},
	}
}

// toFailure puts an error on the wire.
func toFailure(err error) failure {
	for _, s := range wireSentinels() {
		if errors.Is(err, s.err) {
			return failure{Code: s.code, Message: err.Error()}
		}
	}

	return failure{Code: string(engine.CodeOf(err)), Message: err.Error()}
}

// err takes an error off the wire.
func (f failure) err() error {
	for _, s := range wireSentinels() {
		if f.Code == s.code {
			return fmt.Errorf("%w (%s)", s.err, f.Message)
		}
	}

	return engine.Errorf(engine.Code(f.Code), "%s", f.Message)
}

// status for people who look at the traffic; the client goes by the code.
func (f failure) status() int {
	switch f.Code {
	case wireNotFound:
		return http.StatusNotFound
	case wireInvalidRange:
		return http.StatusRequestedRangeNotSatisfiable
	case wireAlreadyExists:
		return http.StatusConflict
	case string(engine.CodeStoreReadOnly):
		return http.StatusForbidden
	case string(engine.CodeInvalidRequest), wireNotAVolume, wireNoSetTime, wireNoOption, wireNoObjectLock:
		return http.StatusBadRequest
	default:
		return http.StatusBadGateway
	}
}
