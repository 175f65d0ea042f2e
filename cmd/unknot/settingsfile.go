package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
)

// readSettings reads a settings file.
func readSettings(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		var call *fs.PathError
		if errors.As(err, &call) {
			err = call.Err
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// decodeSettings decodes one YAML document, of the file path, into the struct that to points to. Keys
// that are not there keep their values; unknown keys, wrong types and a second
// document are refused. The error says which line of the file is wrong.
func decodeSettings(path string, b []byte, to any) (err error) {
	defer func() { // the decoder panics at some tags
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: the decoder of YAML gives up on it (%v): leave out tags (!name)", path, p)
		}
	}()
	// Decoding an empty document into a struct would clear it.
	var content any
	if err := yaml.Unmarshal(b, &content); err == nil && content == nil {
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.DisallowUnknownField())
	if err := d.Decode(to); err != nil && !errors.Is(err, io.EOF) {
		err = plain(err)
		var unknown *yaml.UnknownFieldError
		if errors.As(err, &unknown) {
			err = fmt.Errorf("%w: the settings are %s", err, strings.Join(keys(to), ", "))
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Decode(to); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: has more than one document", path)
	}
	return nil
}

// plain says on one line, and without Go's names, what the decoder draws a
// picture of.
func plain(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) {
		return err
	}
	message := at.GetMessage()
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		message = "want " + kindName(wrong.DstType) + " here"
	}
	if t := at.GetToken(); t != nil && t.Position != nil {
		message = fmt.Sprintf("line %d: %s", t.Position.Line, message)
	}
	return &settingsError{message, err}
}

// A settingsError is an error of the decoder in our words.
type settingsError struct {
	message string
	err     error
}

func (e *settingsError) Error() string { return e.message }
func (e *settingsError) Unwrap() error { return e.err }

// keys are the names of the settings in the struct that to points to.
func keys(to any) (names []string) {
	t := reflect.TypeOf(to).Elem()
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" && name != "-" && !strings.Contains(name, "_") { // but for other spellings
			names = append(names, name)
		}
	}
	return names
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	default:
		return "text"
	}
}
