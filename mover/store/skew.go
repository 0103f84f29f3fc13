package store

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// skewBound is by how much a clock may be off before a server refuses its
	// signatures, as S3 defines it.
	skewBound = 15 * time.Minute
	// skewTries is how often a request whose time was refused is signed: the
	// signature may only have waited for too long to be sent.
	skewTries = 3
)

// dated remembers from a server's answers by how much its clock differs from ours.
type dated struct {
	transport *http.Transport
	now       func() time.Time
	// ahead is how far the server's clock is ahead of ours, in nanoseconds.
	ahead atomic.Int64
}

// RoundTrip makes the request and looks at the answer's date.
func (d *dated) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := d.transport.RoundTrip(r)
	if err != nil {
		return nil, err // an http.RoundTripper hands the error on
	}

	if there, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		d.ahead.Store(int64(there.Sub(d.now())))
	}

	return answer, nil
}

// blame adds the clock's part in a refusal. An answer without a body, as to a
// HEAD, says no more than that it is one.
func (d *dated) blame(err error) error {
	code := engine.CodeOf(err)
	ahead := time.Duration(d.ahead.Load()).Round(time.Second)

	var refused minio.ErrorResponse

	silent := code == engine.CodeCredentialsInvalid && ahead.Abs() >= skewBound &&
		errors.As(err, &refused) && refused.Code == minio.AccessDenied
	if code != engine.CodeClockSkewed && !silent {
		return err
	}

	return engine.Errorf(engine.CodeClockSkewed, "%s: %w", difference(ahead), err)
}

func difference(ahead time.Duration) string {
	switch {
	case ahead >= time.Minute:
		return fmt.Sprintf("the clock of this node is %s behind the store's", ahead)
	case ahead <= -time.Minute:
		return fmt.Sprintf("the clock of this node is %s ahead of the store's", -ahead)
	default:
		return "the store refuses the time of the request, though its clock and this node's agree now"
	}
}
