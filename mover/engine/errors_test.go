package engine_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/engine"
)

func TestTheCodeOfAnErrorIsThatOfTheOutermost(t *testing.T) {
	inner := engine.Errorf(engine.CodeStoreStalled, "no byte")

	for name, test := range map[string]struct {
		err  error
		want engine.Code
	}{
		"none":                  {nil, ""},
		"a plain one":           {errors.New("plain"), engine.CodeInternal},
		"a coded one":           {inner, engine.CodeStoreStalled},
		"a wrapped one":         {fmt.Errorf("upload: %w", inner), engine.CodeStoreStalled},
		"one that is coded new": {engine.Errorf(engine.CodeCanceled, "stop: %w", inner), engine.CodeCanceled},
		"one that is joined":    {errors.Join(errors.New("plain"), inner), engine.CodeStoreStalled},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, engine.CodeOf(test.err)) })
	}
}

func TestOnlyWhatMayPassIsRetryable(t *testing.T) {
	for code, want := range map[engine.Code]bool{
		engine.CodeStoreUnavailable: true, engine.CodeStoreStalled: true, engine.CodeStoreLostWrite: true, engine.CodeWorkerDied: true, engine.CodeMemoryExceeded: true, engine.CodeVolumeHung: true, engine.CodeClockSkewed: true,
		engine.CodeStoreFull: false,
		engine.CodeCanceled:  false, engine.CodeWrongKey: false, engine.CodeSourceUnreadable: false, engine.CodeTargetFull: false,
		engine.CodeRepositoryDamaged: false, engine.CodeCredentialsInvalid: false, engine.CodeInternal: false, engine.CodeSnapshotNotFound: false,
	} {
		assert.Equal(t, want, code.Retryable(), code)
	}
}

func TestAnErrorTellsItsCauseAndUnwraps(t *testing.T) {
	cause := errors.New("cause")
	err := engine.Errorf(engine.CodeInternal, "attempt: %w", cause)

	assert.Equal(t, "attempt: cause", err.Error())
	assert.ErrorIs(t, err, cause)
}
